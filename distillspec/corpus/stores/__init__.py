"""What the target has answered, kept on disk."""
