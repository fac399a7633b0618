"""Upper bounds of what a router could gain, see ``docs/robustness.md``."""
