"""The data of a training: songs, their tracks, the CQTs of these, and batches of them."""
