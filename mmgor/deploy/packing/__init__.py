"""Pack a quantized model into one file, with weights of n bits each."""
