"""What makes, runs and shows the pack: environment, servers, workflows, pictures."""
