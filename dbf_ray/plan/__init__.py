"""Settings that fit the data: what its objects are like, what a detector can match of them, and the rules
that choose a configuration by it.
"""
