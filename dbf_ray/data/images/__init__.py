"""Image files of any kind and size, read whole or by windows."""
