"""Squared Euclidean distances of windows of chroma, one row of the distance matrix after the other.

They are sums of integers, at most 24 x 12 x 15 x 15 = 64 800. They are computed modulo 2^16 in int16, twice as many to
a vector register as float32, and exactly: no result depends on the order of additions, so both directions of a pair,
and all transpositions of it, agree to the bit. Stored are distances less `BIAS`, which fit the signed type.
"""

from __future__ import annotations

import numpy as np

from .compiled import inner

TILE = 16  # columns whose channels lie together in memory
BIAS = 32767  # subtracted from distances before they are stored
HIGHEST = 32767  # a stored distance beyond that of any two windows
_int16, _u = np.int16, np.uint64


@inner
def tiled(levels):
    """Levels (n, 12) rearranged for the columns of the distance matrix: tiles of `TILE` frames.

    A tile holds the first channel of its frames, then the second, to the twelfth, then their squared norms. The last
    tile is filled up with 0. Flat (tiles * 13 * TILE,) of int16.
    """
    tiles = np.zeros(-(-levels.shape[0] // TILE) * TILE * 13, np.int16)
    for i in range(levels.shape[0]):
        begin = i // TILE * TILE * 13 + i % TILE
        for channel in range(12):
            level = int(levels[i, channel])
            tiles[begin + channel * TILE] = level
            tiles[begin + 12 * TILE] += level * level
    return tiles


@inner
def doubled(levels):
    """Levels (n, 12) rearranged for the rows of the distance matrix.

    A frame is its twelve levels times -2, the same once more, and its squared norm: any twelve in a row of the first 24
    are the frame in one of its transpositions. Flat (n * 25,) of int16.
    """
    doubled = np.zeros(25 * levels.shape[0], np.int16)
    for i in range(levels.shape[0]):
        for channel in range(12):
            level = int(levels[i, channel])
            doubled[25 * i + channel] = doubled[25 * i + 12 + channel] = -2 * level
            doubled[25 * i + 24] += level * level
    return doubled


@inner
def mean_distances(x, n, semitones, profile, m):
    """The mean squared distance (n,) of each frame of x to `m` others, less the mean squared norm of these.

    `x` is as `doubled` gives it and transposed upwards by `semitones`; `profile` (12,) is the sum of the others.
    """
    means = np.empty(n, np.float32)
    for i in range(n):
        product = 0
        for channel in range(12):
            product += int(x[25 * i + 12 - semitones + channel]) * profile[channel]
        means[i] = np.float32(x[25 * i + 24]) + np.float32(product) / np.float32(m)
    return means


@inner
def frame_distances(x, at, first, second, tiles, squares, to1, to2, n_tiles):
    """Write the squared distances of one frame of `x`, in two transpositions, to all frames in `tiles`.

    The frame is at offset `at` of what `doubled` gives; its distances are written to `squares` from offsets `to1` and
    `to2`. The loops are written out so that the 24 levels of the frame stay in registers.
    """
    a, c = _u(at + 12 - first), _u(at + 12 - second)
    a0, a1, a2, a3 = x[a], x[a + _u(1)], x[a + _u(2)], x[a + _u(3)]
    a4, a5, a6, a7 = x[a + _u(4)], x[a + _u(5)], x[a + _u(6)], x[a + _u(7)]
    a8, a9, a10, a11 = x[a + _u(8)], x[a + _u(9)], x[a + _u(10)], x[a + _u(11)]
    c0, c1, c2, c3 = x[c], x[c + _u(1)], x[c + _u(2)], x[c + _u(3)]
    c4, c5, c6, c7 = x[c + _u(4)], x[c + _u(5)], x[c + _u(6)], x[c + _u(7)]
    c8, c9, c10, c11 = x[c + _u(8)], x[c + _u(9)], x[c + _u(10)], x[c + _u(11)]
    norm = x[_u(at + 24)]
    for tile in range(_u(n_tiles)):
        b, o1, o2 = tile * _u(13 * TILE), _u(to1) + tile * _u(TILE), _u(to2) + tile * _u(TILE)
        for j in range(_u(TILE)):
            t = b + j
            b0, b1, b2 = tiles[t], tiles[t + _u(TILE)], tiles[t + _u(2 * TILE)]
            b3, b4, b5 = tiles[t + _u(3 * TILE)], tiles[t + _u(4 * TILE)], tiles[t + _u(5 * TILE)]
            b6, b7, b8 = tiles[t + _u(6 * TILE)], tiles[t + _u(7 * TILE)], tiles[t + _u(8 * TILE)]
            b9, b10, b11 = tiles[t + _u(9 * TILE)], tiles[t + _u(10 * TILE)], tiles[t + _u(11 * TILE)]
            norms = _int16(norm + tiles[t + _u(12 * TILE)])
            squares[o1 + j] = norms + (
                a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3 + a4 * b4 + a5 * b5
                + a6 * b6 + a7 * b7 + a8 * b8 + a9 * b9 + a10 * b10 + a11 * b11
            )  # fmt: skip
            squares[o2 + j] = norms + (
                c0 * b0 + c1 * b1 + c2 * b2 + c3 * b3 + c4 * b4 + c5 * b5
                + c6 * b6 + c7 * b7 + c8 * b8 + c9 * b9 + c10 * b10 + c11 * b11
            )  # fmt: skip


@inner
def advance_windows(sums, at, squares, new, old, m):
    """Move `m` windows one frame on: add the distances of the frames that enter, subtract those of the ones that leave.

    `sums` has the distances of windows by diagonal of the matrix, so that both windows of a cell move together.
    """
    for j in range(m):
        sums[at + j] = _int16(sums[at + j] + _int16(squares[new + j] - squares[old + j]))
