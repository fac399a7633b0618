"""Comparison of frozen vision encoders on the synthetic database; see `compare.sh`."""
