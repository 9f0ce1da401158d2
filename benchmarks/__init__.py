"""What is measured, each with a command that prints JSON; ratios within one run, never between machines."""
