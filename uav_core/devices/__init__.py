"""What a device wants done otherwise than the networks' layers do it."""
