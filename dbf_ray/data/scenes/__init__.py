"""Generated aerial scenes: a data set without files."""
