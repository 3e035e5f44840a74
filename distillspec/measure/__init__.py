"""Records become numbers: timed decoding, exact expectations, intervals, summaries."""
