"""The networks: temporal U-Net and VAEs, built from the layer classes in ``operations``."""
