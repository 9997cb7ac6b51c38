"""Changes an ONNX graph between its trace and its file."""
