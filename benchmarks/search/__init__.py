"""A table of recorded learning curves, and searches replayed on it."""
