"""The arithmetic of a device, in integers alone."""
