"""Scripts of the pack: environment, servers, workflows, pictures."""
