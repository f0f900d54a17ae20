"""What counts as passing."""
