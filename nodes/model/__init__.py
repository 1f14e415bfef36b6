"""The networks as ComfyUI manages them: MODEL, VAE, CLIP."""
