"""From noise to the latents of a clip: schedule, segments, tiles, propagation."""
