"""Patches: windows of an image as images of their own."""
