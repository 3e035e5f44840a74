"""Complete responses, sampled in batches."""
