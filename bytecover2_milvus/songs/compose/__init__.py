"""Songs out of a seed."""
