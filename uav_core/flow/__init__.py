"""Optical flow by RAFT or by the built-in method, for large frames as well."""
