"""The pictures of the help pages and of README."""
