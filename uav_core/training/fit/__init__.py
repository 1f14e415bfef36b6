"""Training that continues from existing weights, on any device, for a given time."""
