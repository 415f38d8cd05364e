"""Songs as notes, their arrangements, and the renderer that makes audio of them; NumPy only."""
