"""From a trained detector to an ONNX or OpenVINO file."""
