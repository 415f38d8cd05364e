"""Measurements: each prints JSON, with the reference and ours from the same run."""
