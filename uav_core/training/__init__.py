"""Training: degradations, losses, loops and the command `python -m uav_core.training`."""
