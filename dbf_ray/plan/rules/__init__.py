"""The rules that a plan is made by, one a file; docs/plan.md says of each what, why and when not to trust it."""
