"""The environment in which everything is run."""
