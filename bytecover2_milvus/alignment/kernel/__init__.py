"""The compiled part of Qmax: from levels of chroma to the longest path of two tracks (`paths`) and its cells (`trace`).

Arrays are flat, and inner functions take unsigned offsets into them, not slices: a slice costs as much as a vectorised
loop over a hundred columns, and a signed index would be checked for being negative. Several short loops in place of one
are deliberate: LLVM vectorises a loop only up to eight checks that its arrays do not overlap.
"""
