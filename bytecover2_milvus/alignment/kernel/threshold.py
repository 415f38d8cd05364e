"""The distance up to which windows are nearest neighbours, found by counting, which is cheaper than sorting."""

from __future__ import annotations

import numpy as np

from .compiled import inner
from .distances import BIAS, HIGHEST

NONE = -BIAS - 1  # a threshold below all stored distances: there is no neighbour
_ROUNDS = 4  # of interpolation in the search for a threshold, before it falls back to equal parts
_NEAR, _FAR = np.float32(1), np.float32(4)  # of the first thresholds from the guess, in spacings of distances
_int16 = np.int16


@inner
def n_neighbours(kappa, n_windows):
    """The number of nearest neighbours that a window may have: at most the share kappa, at least one."""
    return max(1, int(kappa * n_windows))


@inner
def find_threshold(row, at, w, n, k, guess, spacing):
    """The highest threshold that at most `k` of `n` distances are within, or another that the same ones are within.

    `row` has the stored distances from offset `at`; `w` of them are counted, all but `n` of which are `HIGHEST`. The
    search starts at `guess`, with `spacing` as the expected difference of neighbouring distances, and goes on by
    interpolation between counts. Returned besides is the spacing that was found near the threshold.
    """
    low, n_low, high, n_high = NONE, 0, HIGHEST, n
    near, far = int(_NEAR * spacing), int(_FAR * spacing) + 1
    t0, t1, t2, t3 = guess - far, guess - near, guess + near + 1, guess + far
    rounds = 0
    while True:
        t0, t1 = min(max(t0, low + 1), high - 1), min(max(t1, low + 1), high - 1)
        t2, t3 = min(max(t2, low + 1), high - 1), min(max(t3, low + 1), high - 1)
        n0, n1, n2, n3 = _count(row, at, w, _int16(t0 + 1), _int16(t1 + 1), _int16(t2 + 1), _int16(t3 + 1))
        rounds += 1
        if rounds == 1 and n3 > n0:
            spacing = np.float32(0.5) * (spacing + np.float32(t3 - t0) / np.float32(n3 - n0))
        if n0 > k:
            high, n_high = t0, n0
        elif n1 > k:
            low, n_low, high, n_high = t0, n0, t1, n1
        elif n2 > k:
            low, n_low, high, n_high = t1, n1, t2, n2
        elif n3 > k:
            low, n_low, high, n_high = t2, n2, t3, n3
        else:
            low, n_low = t3, n3
        if n_low == k or high - low <= 1:
            return low, spacing
        if rounds >= _ROUNDS:
            part = (high - low) // 5
            t0, t1, t2, t3 = low + part, low + 2 * part, low + 3 * part, low + 4 * part
        elif low == NONE:
            step = int(np.float32(n_high - k) * spacing) + 1
            t0, t1, t2, t3 = high - 2 * step, high - step - (step >> 2), high - step + (step >> 2), high - (step >> 1)
        elif high == HIGHEST:
            step = int(np.float32(k - n_low) * spacing) + 1
            t0, t1, t2, t3 = low + (step >> 1), low + step - (step >> 2), low + step + (step >> 2), low + 2 * step
        else:
            gap = np.float32(high - low) / np.float32(n_high - n_low)
            t1 = low + int(gap * np.float32(k - n_low))
            step = int(gap * np.float32(0.5)) + 1
            t0, t2, t3 = t1 - step, t1 + step, t1 + 2 * step


@inner
def _count(row, at, w, t0, t1, t2, t3):
    """The number of distances below each of four values; to count those at most as large would take one more step."""
    n0 = n1 = n2 = n3 = _int16(0)
    for j in range(w):
        distance = row[at + j]
        n0 = _int16(n0 + (distance < t0))
        n1 = _int16(n1 + (distance < t1))
        n2 = _int16(n2 + (distance < t2))
        n3 = _int16(n3 + (distance < t3))
    return int(n0), int(n1), int(n2), int(n3)
