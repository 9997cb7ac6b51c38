"""What each layer of a detector costs: measured, summed, shown."""
