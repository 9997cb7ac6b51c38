"""Run quantized layers with integer arithmetic only, as a device does."""
