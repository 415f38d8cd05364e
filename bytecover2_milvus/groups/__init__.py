"""The catalogue against itself: all pairs that may be one work, and the groups that they make."""
