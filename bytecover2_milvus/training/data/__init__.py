"""What training is shown: songs, their tracks, the CQTs of these, and batches of them."""
