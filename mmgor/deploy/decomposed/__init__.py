"""Lowers a frozen network to integers that LiteRT and ExecuTorch know.

``program`` is the entry point. Its result is a program of torch.export with
torch's operators ``quantized_decomposed``, and int8 wherever training rounded.
"""
