"""The figures of a report, drawn for a light and a dark page."""
