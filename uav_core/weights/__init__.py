"""Weight files: found, read safely, told apart, converted."""
