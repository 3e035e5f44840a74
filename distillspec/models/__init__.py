"""The room that knows Hugging Face models."""
