"""Which configuration decodes the next round."""
