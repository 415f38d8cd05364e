"""Exported models that ship with the package."""
