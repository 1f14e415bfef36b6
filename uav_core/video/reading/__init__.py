"""What a video file is, and its frames one after the other."""
