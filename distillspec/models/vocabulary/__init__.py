"""Tokenizers, chat templates, end tokens, and vocabularies that differ."""
