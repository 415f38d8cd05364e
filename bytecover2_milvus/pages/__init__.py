"""HTML pages of one file each: style, script, images and sound are in it, and it requests nothing."""
