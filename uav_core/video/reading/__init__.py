"""Reads video files: their properties, the times of their frames, and the frames in order."""
