"""How well a system finds covers."""
