"""The compiled part of Qmax: recurrence of two chroma sequences row by row, and the longest path through it.

Squared distances of windows are sums of integers, at most 24 x 12 x 15 x 15 = 64 800. They are computed modulo 2^16 in
int16, twice as many to a vector register as float32, and exactly: no result depends on the order of additions, so
both directions of a pair, and all transpositions of it, agree to the bit. Stored are distances less `_BIAS`, which
fit the signed type.

No cell depends on another one of its row, so rows are loops that the compiler vectorises; the two transpositions of a
pair share the loads of a row. The state is a few rows: memory grows with the lengths, not with their product.
Each pair is passed over twice, once for the thresholds of the columns, once for all the rest; that is cheaper than to
keep the distances.

Several short loops in place of one are deliberate: LLVM vectorises a loop only up to eight checks that its arrays do
not overlap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numba
import numpy as np

from ..writing import whole_file

_INNER = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}
_TILE = 16  # columns whose channels lie together in memory
_BIAS = 32767  # of stored distances
_NONE = -_BIAS - 1  # a threshold below all distances
_HIGHEST = 32767
_ROUNDS = 4  # of interpolation in the search for a threshold, before it falls back to equal parts
_ONE, _ZERO = np.float32(1), np.float32(0)
_int16 = np.int16


def _entry(function: Callable) -> Callable:
    """The function, compiled at its first call, or taken from Numba's cache on disk.

    The cache is in ``NUMBA_CACHE_DIR``, beside this file, or in the user's cache folder, the first that is writable;
    where none is, each process compiles anew. Numba writes its files whole, but runs the machine code in them unseen,
    so damage would end the process. Their digests lie beside them, and files that differ are deleted before use.
    """
    try:
        compiled = numba.njit(cache=True, **_INNER)(function)
    except RuntimeError:  # Numba found no folder to write to
        return numba.njit(**_INNER)(function)
    folder = Path(compiled.stats.cache_path)
    digests = folder / f"{__name__.rpartition('.')[2]}.{function.__name__}.sha256.json"

    def found() -> dict[str, str]:
        files = sorted(folder.glob(f"*.{function.__name__}-*.nb[ic]"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    with suppress(OSError):
        try:
            known = json.loads(digests.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if found() != known:
            for name in found():
                (folder / name).unlink(missing_ok=True)

    def call(*arguments: object) -> object:
        misses = sum(compiled.stats.cache_misses.values())
        result = compiled(*arguments)
        if sum(compiled.stats.cache_misses.values()) > misses:
            with suppress(OSError), whole_file(digests) as part:
                part.write_text(json.dumps(found()), encoding="utf-8")
        return result

    return call


@numba.njit(**_INNER)
def _squares(x1, x2, i, tiles, squares1, squares2):
    """Squared distances of frame i of both transpositions to all frames; 24 values stay in registers.

    `x1` and `x2` hold -2 times the levels and, last, the square of their norm; `tiles` hold levels and, last, that.
    """
    a0, a1, a2, a3, a4, a5 = x1[i, 0], x1[i, 1], x1[i, 2], x1[i, 3], x1[i, 4], x1[i, 5]
    a6, a7, a8, a9, a10, a11 = x1[i, 6], x1[i, 7], x1[i, 8], x1[i, 9], x1[i, 10], x1[i, 11]
    c0, c1, c2, c3, c4, c5 = x2[i, 0], x2[i, 1], x2[i, 2], x2[i, 3], x2[i, 4], x2[i, 5]
    c6, c7, c8, c9, c10, c11 = x2[i, 6], x2[i, 7], x2[i, 8], x2[i, 9], x2[i, 10], x2[i, 11]
    norm = x1[i, 12]
    for tile in range(squares1.shape[0] // _TILE):
        o = tile * _TILE
        b = o * 13
        for j in range(_TILE):
            b0, b1, b2 = tiles[b + j], tiles[b + _TILE + j], tiles[b + 2 * _TILE + j]
            b3, b4, b5 = tiles[b + 3 * _TILE + j], tiles[b + 4 * _TILE + j], tiles[b + 5 * _TILE + j]
            b6, b7, b8 = tiles[b + 6 * _TILE + j], tiles[b + 7 * _TILE + j], tiles[b + 8 * _TILE + j]
            b9, b10, b11 = tiles[b + 9 * _TILE + j], tiles[b + 10 * _TILE + j], tiles[b + 11 * _TILE + j]
            norms = _int16(norm + tiles[b + 12 * _TILE + j])
            squares1[o + j] = norms + (
                a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3 + a4 * b4 + a5 * b5
                + a6 * b6 + a7 * b7 + a8 * b8 + a9 * b9 + a10 * b10 + a11 * b11
            )  # fmt: skip
            squares2[o + j] = norms + (
                c0 * b0 + c1 * b1 + c2 * b2 + c3 * b3 + c4 * b4 + c5 * b5
                + c6 * b6 + c7 * b7 + c8 * b8 + c9 * b9 + c10 * b10 + c11 * b11
            )  # fmt: skip


@numba.njit(**_INNER)
def _advance(sums, new, old):
    """Squared distances of windows, kept by diagonal, one frame on: the last frames add, the first ones take away."""
    for j in range(sums.shape[0]):
        sums[j] = _int16(sums[j] + _int16(new[j] - old[j]))


@numba.njit(**_INNER)
def _count(row, t0, t1, t2, t3):
    """How many distances are at most each of four thresholds."""
    n0 = n1 = n2 = n3 = _int16(0)
    for j in range(row.shape[0]):
        distance = row[j]
        n0 = _int16(n0 + (distance <= t0))
        n1 = _int16(n1 + (distance <= t1))
        n2 = _int16(n2 + (distance <= t2))
        n3 = _int16(n3 + (distance <= t3))
    return int(n0), int(n1), int(n2), int(n3)


@numba.njit(**_INNER)
def _threshold(row, k, guess, spacing):
    """The highest threshold that at most k distances reach, or one that the same ones reach; and their spacing there.

    Counting is cheaper than sorting. The search starts at a guess, the threshold of the row before, with the expected
    difference of neighbouring distances, and goes on by interpolation between counts.
    """
    low, n_low, high, n_high = _NONE, 0, _HIGHEST, row.shape[0]
    t0, t3 = guess - int(5 * spacing) - 1, guess + int(5 * spacing) + 1
    t1, t2 = guess - int(np.float32(1.5) * spacing), guess + int(np.float32(1.5) * spacing) + 1
    rounds = 0
    while True:
        t0, t1 = min(max(t0, low + 1), high - 1), min(max(t1, low + 1), high - 1)
        t2, t3 = min(max(t2, low + 1), high - 1), min(max(t3, low + 1), high - 1)
        n0, n1, n2, n3 = _count(row, _int16(t0), _int16(t1), _int16(t2), _int16(t3))
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
        elif low == _NONE:
            step = int(np.float32(n_high - k) * spacing) + 1
            t0, t1, t2, t3 = high - 2 * step, high - step - (step >> 2), high - step + (step >> 2), high - (step >> 1)
        elif high == _HIGHEST:
            step = int(np.float32(k - n_low) * spacing) + 1
            t0, t1, t2, t3 = low + (step >> 1), low + step - (step >> 2), low + step + (step >> 2), low + 2 * step
        else:
            gap = np.float32(high - low) / np.float32(n_high - n_low)
            t1 = low + int(gap * np.float32(k - n_low))
            step = int(gap * np.float32(0.5)) + 1
            t0, t2, t3 = t1 - step, t1 + step, t1 + 2 * step


@numba.njit(**_INNER)
def _extend(row, threshold, thresholds, q1a, q1b, q2, q0, penalty):
    """One row of Q where a gap's onset costs what its extension costs."""
    for j in range(row.shape[0]):
        best = max(max(q1a[j], q1b[j]), q2[j])
        q0[j] = best + _ONE if row[j] <= min(threshold, thresholds[j]) else max(best - penalty, _ZERO)


@numba.njit(**_INNER)
def _penalise(row, threshold, thresholds, q0, p0, onset, extension):
    """A row of Q less what a gap costs that follows each cell."""
    for j in range(row.shape[0]):
        p0[j] = q0[j] - (onset if row[j] <= min(threshold, thresholds[j]) else extension)


@numba.njit(**_INNER)
def _extend_penalised(row, threshold, thresholds, q1a, q1b, q2, p1a, p1b, p2, q0):
    """One row of Q where onset and extension of a gap differ, from rows of Q and penalised ones."""
    for j in range(row.shape[0]):
        q0[j] = max(max(max(p1a[j], p1b[j]), p2[j]), _ZERO)
    for j in range(row.shape[0]):
        best = max(max(q1a[j], q1b[j]), q2[j])
        q0[j] = best + _ONE if row[j] <= min(threshold, thresholds[j]) else q0[j]


@numba.njit(**_INNER)
def _neighbours(kappa, n_windows):
    """How many nearest neighbours a window may have: at most the share kappa, at least one."""
    return max(1, int(kappa * n_windows))


@numba.njit(**_INNER)
def _tiled(levels):
    """Levels (n, 12) in tiles of columns, channel after channel, then squared norms; the last tile is filled with 0."""
    tiles = np.zeros(-(-levels.shape[0] // _TILE) * _TILE * 13, np.int16)
    for i in range(levels.shape[0]):
        begin = i // _TILE * _TILE * 13 + i % _TILE
        for channel in range(12):
            level = int(levels[i, channel])
            tiles[begin + channel * _TILE] = level
            tiles[begin + 12 * _TILE] += level * level
    return tiles


@numba.njit(**_INNER)
def _transposed(levels, semitones):
    """-2 times the levels (n, 12) in two transpositions upwards, and squared norms: (2, n, 13) of int16."""
    transposed = np.zeros((2, levels.shape[0], 13), np.int16)
    for s in range(2):
        for i in range(levels.shape[0]):
            for channel in range(12):
                level = int(levels[i, channel])
                transposed[s, i, (channel + semitones[s]) % 12] = -2 * level
                transposed[s, i, 12] += level * level
    return transposed


@numba.njit(**_INNER)
def _maximum(bits):
    """Of floats by their bits: where none is negative, both have one order, and LLVM vectorises that of integers."""
    highest = np.int32(0)
    for j in range(bits.shape[0]):
        highest = np.int32(max(highest, bits[j]))
    return highest


@numba.njit(**_INNER)
def _pass(x, tiles, m, embedding, k, thresholds, onset, extension, last, recurrence):
    """One pass over the rows of a pair: x in both transpositions, and m frames in tiles.

    The first pass fills `thresholds` (2, windows of x). The last one takes those of the columns from it and returns
    the maximum of Q; it fills `recurrence` of the first transposition, unless that has no rows.
    """
    n, width = x.shape[1], tiles.shape[0] // 13
    w = m - embedding + 1
    squares = np.zeros((2, embedding + 1, embedding + width), np.int16)  # of as many rows, after as many columns of 0
    sums = np.zeros((2, n + m), np.int16)
    for d in range(n + m):
        sums[0, d] = sums[1, d] = -_BIAS
    q = np.zeros((2, 3, w + 2), np.float32)  # of three rows, after two columns of 0
    p = np.zeros((2, 3, w + 2), np.float32)
    longest = np.int32(0)
    guesses, spacings = np.zeros(2, np.int64), np.empty(2, np.float32)
    spacings[0] = spacings[1] = np.float32(512) / np.float32(k)
    for i in range(n):
        new, old = i % (embedding + 1), (i + 1) % (embedding + 1)
        _squares(x[0], x[1], i, tiles, squares[0, new, embedding:], squares[1, new, embedding:])
        for s in range(2):
            _advance(sums[s, n - i : n - i + m], squares[s, new, embedding:], squares[s, old, :m])
            if i < embedding - 1:
                continue
            windows = sums[s, n - i + embedding - 1 : n - i + m]
            threshold, spacings[s] = _threshold(windows, k, guesses[s], spacings[s])
            guesses[s] = threshold
            if not last:
                thresholds[s, i - embedding + 1] = threshold
                continue
            row_of_q = _row_of_q(windows, _int16(threshold), thresholds[s], q[s], p[s], i, onset, extension)
            longest = max(longest, _maximum(row_of_q.view(np.int32)))
            if s == 0 and recurrence.shape[0]:
                for j in range(w):
                    recurrence[i - embedding + 1, j] = windows[j] <= min(threshold, thresholds[s, j])
    bits = np.empty(1, np.int32)
    bits[0] = longest
    return bits.view(np.float32)[0]


@numba.njit(**_INNER)
def _row_of_q(row, threshold, thresholds, q, p, i, onset, extension):
    """Row i of Q, from the two before it; the three take turns in `q`, and less the penalties in `p`."""
    w = row.shape[0]
    now, one, two = i % 3, (i + 2) % 3, (i + 1) % 3
    q1a, q1b, q2, q0 = q[one, 1 : 1 + w], q[one, :w], q[two, 1 : 1 + w], q[now, 2:]
    if onset == extension:
        _extend(row, threshold, thresholds, q1a, q1b, q2, q0, onset)
    else:
        p1a, p1b, p2, p0 = p[one, 1 : 1 + w], p[one, :w], p[two, 1 : 1 + w], p[now, 2:]
        _extend_penalised(row, threshold, thresholds, q1a, q1b, q2, p1a, p1b, p2, q0)
        _penalise(row, threshold, thresholds, q0, p0, onset, extension)
    return q0


@numba.njit(**_INNER)
def _two_best_transpositions(x_profile, y_profile):
    """The two transpositions of x, upwards, whose profile (channels,) has the largest products with that of y."""
    best, first, second_best, second = -1.0, 0, -1.0, 0
    for semitones in range(12):
        product = 0.0
        for channel in range(x_profile.shape[0]):
            group, pitch = channel // 12 * 12, channel % 12
            product += x_profile[channel] * y_profile[group + (pitch + semitones) % 12]
        if product > best:
            second_best, second = best, first
            best, first = product, semitones
        elif product > second_best:
            second_best, second = product, semitones
    return first, second


@numba.njit(**_INNER)
def _profile(levels):
    """Sum over frames, (channels,): whole numbers in float64, exact."""
    profile = np.zeros(levels.shape[1], np.float64)
    for i in range(levels.shape[0]):
        for channel in range(levels.shape[1]):
            profile[channel] += levels[i, channel]
    return profile


@numba.njit(**_INNER)
def _pair(query, candidate, first, second, embedding, kappa, onset, extension, recurrence):
    """The maximum of Q of two sequences of 12 channels, the query transposed by `first` and by `second`."""
    n, m = query.shape[0] - embedding + 1, candidate.shape[0] - embedding + 1
    thresholds = np.empty((2, m), np.int16)
    x, y, semitones, k, length = candidate, query, (12 - first, 12 - second), _neighbours(kappa, n), _ZERO
    for last in (False, True):
        length = _pass(
            _transposed(x, semitones), _tiled(y), y.shape[0], embedding, k, thresholds,
            onset, extension, last, recurrence,
        )  # fmt: skip
        x, y, semitones, k = query, candidate, (first, second), _neighbours(kappa, m)
    return length


@_entry
def longest_paths(query, candidates, offsets, groups, embedding, kappa, onset, extension, out):
    """Fill `out` (candidates, len(groups)) with the maximum of Q; 0 for candidates shorter than the embedding.

    `query` (n, channels) and `candidates` (all frames, channels) are uint8 levels; `offsets` say where each candidate
    begins, and where the last one ends; `groups` which twelve channels are aligned.
    """
    profile = _profile(query)
    nowhere = np.zeros((0, 0), np.bool_)
    for c in range(offsets.shape[0] - 1):
        candidate = candidates[offsets[c] : offsets[c + 1]]
        out[c] = _ZERO
        if candidate.shape[0] >= embedding:
            first, second = _two_best_transpositions(profile, _profile(candidate))
            for k in range(groups.shape[0]):
                channels = slice(12 * groups[k], 12 * groups[k] + 12)
                x, y = query[:, channels], candidate[:, channels]
                out[c, k] = _pair(x, y, first, second, embedding, kappa, onset, extension, nowhere)


@_entry
def recurrence_of(query, candidate, group, rank, embedding, kappa, recurrence):
    """Fill the recurrence of one group in the best (rank 0) or second best transposition of the query; return that."""
    transpositions = _two_best_transpositions(_profile(query), _profile(candidate))
    semitones = transpositions[rank]
    channels = slice(12 * group, 12 * group + 12)
    x, y = query[:, channels], candidate[:, channels]
    _pair(x, y, semitones, semitones, embedding, kappa, _ZERO, _ZERO, recurrence)
    return semitones


@_entry
def trace(recurrence, onset, extension, moves, path):
    """The maximum of Q of a recurrence matrix, and the cells of the path that ends there.

    Fills `moves` (uint8, the shape of the matrix) with the way that each cell was reached, and `path` (at least the
    lesser side, 2) from its end to its begin. Returns the maximum and the number of cells, those in gaps included.
    """
    n, m = recurrence.shape
    q = np.zeros((3, m + 2), np.float32)  # two columns of 0 before the first
    p = np.zeros((3, m + 2), np.float32)
    best, end_i, end_j = _ZERO, 0, 0
    for i in range(n):
        now, one, two = i % 3, (i + 2) % 3, (i + 1) % 3
        for j in range(m):
            source = q if recurrence[i, j] else p
            value, move = source[one, j + 1], 1
            if source[two, j + 1] > value:
                value, move = source[two, j + 1], 2
            if source[one, j] > value:
                value, move = source[one, j], 3
            if recurrence[i, j]:
                q[now, j + 2] = value + _ONE
                p[now, j + 2] = value + _ONE - onset
            else:
                q[now, j + 2] = max(value, _ZERO)
                p[now, j + 2] = max(value, _ZERO) - extension
            moves[i, j] = move if value > _ZERO else 0
            if q[now, j + 2] > best:
                best, end_i, end_j = q[now, j + 2], i, j
    length = 0
    if best > _ZERO:
        i, j = end_i, end_j
        while True:
            path[length, 0], path[length, 1] = i, j
            length += 1
            move = moves[i, j]
            if move == 0:
                break
            i -= 2 if move == 2 else 1
            j -= 2 if move == 3 else 1
    return best, length
