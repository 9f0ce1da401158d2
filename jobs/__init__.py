"""Entry points: one module per thing a person does, each with ``--help``."""
