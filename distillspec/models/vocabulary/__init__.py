"""Tokenizers, chat templates, end tokens, and pairs of different vocabularies."""
