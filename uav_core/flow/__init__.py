"""Optical flow: RAFT's and the built-in one, of large frames as well."""
