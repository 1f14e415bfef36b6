"""Weight files: find them, read them safely, tell them apart, convert them."""
