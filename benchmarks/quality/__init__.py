"""Benchmarks of how well a system finds covers."""
