"""Training goes on from weights that exist, on any device, for as long as there is time."""
