"""The command line: one module per command, each with ``--help``; ``dbf`` calls them, and so do jobs/."""
