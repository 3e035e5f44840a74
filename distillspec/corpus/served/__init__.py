"""The client of a target behind an API."""
