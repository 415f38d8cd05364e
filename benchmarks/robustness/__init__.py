"""What it does to a search that recordings suffer, and machines fail."""
