"""Where prompts come from, and how they become tokens."""
