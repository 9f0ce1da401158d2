"""The rules of a plan, one a file; docs/plan.md says of each what, why and when not to trust it."""
