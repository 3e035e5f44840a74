"""Model folders, GGUF files and Hub ids become models."""
