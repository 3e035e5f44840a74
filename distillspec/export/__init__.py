"""The draft as a plain Hugging Face folder: card, launch lines, upload."""
