"""Training of planners for ``docs/planning.md``."""
