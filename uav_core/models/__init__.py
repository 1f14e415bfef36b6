"""The networks: temporal U-Net and temporal VAEs, with ``operations`` injected."""
