"""Ingest: files in, rows of a collection out, on this machine, on a Ray cluster, or by way of files."""
