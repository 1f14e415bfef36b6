"""The video that a run upscales, frame by frame."""
