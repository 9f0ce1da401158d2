"""Dynamic Backbone Freezing for oriented detectors: training, search and tracking."""

__version__ = "0.1.0"
