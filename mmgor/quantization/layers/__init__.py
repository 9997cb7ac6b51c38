"""Quantized forms of convolutions and linears."""
