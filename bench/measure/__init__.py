"""Time and memory of a case, and of the machine."""
