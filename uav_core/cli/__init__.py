"""The command line: ``python -m uav_core.cli``."""
