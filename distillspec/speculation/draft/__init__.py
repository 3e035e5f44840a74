"""What to propose, and when to stop proposing."""
