"""Arrangements of a song: covers of it, as notes with instruments."""
