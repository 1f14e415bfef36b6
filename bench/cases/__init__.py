"""Cases: the pack and a baseline on the same weights and inputs."""
