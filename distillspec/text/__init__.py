"""Text for people: safe for a terminal, free of secrets, numbers in words."""
