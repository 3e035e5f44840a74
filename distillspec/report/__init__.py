"""Numbers for readers: terminal tables, the HTML page, figures."""
