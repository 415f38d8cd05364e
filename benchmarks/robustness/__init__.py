"""Benchmarks of distorted recordings and of failing machines."""
