"""The second stage: chroma sequences, their alignment by Qmax, and what the similarities mean.

Serving code: no torch. Numba, which compiles the alignment, is imported when the first pair is aligned.
"""
