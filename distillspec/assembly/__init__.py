"""Where a recipe becomes objects: the pair, its text, the training plan."""
