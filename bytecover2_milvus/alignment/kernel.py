"""The compiled part of Qmax: recurrence of two chroma sequences row by row, and the longest path through it.

Squared distances of windows are sums of integers, at most 24 x 12 x 15 x 15 = 64 800. They are computed modulo 2^16 in
int16, twice as many to a vector register as float32, and exactly: no result depends on the order of additions, so
both directions of a pair, and all transpositions of it, agree to the bit. Stored are distances less `_BIAS`, which
fit the signed type.

No cell depends on another one of its row, so rows are loops that the compiler vectorises; the two transpositions of a
pair share the loads of a row. The state is a few rows: memory grows with the lengths, not with their product.
Each pair is passed over twice, once for the thresholds of the columns, once for all the rest; that is cheaper than to
keep the distances.

Arrays are flat, and inner functions take unsigned offsets into them, not slices: a slice costs as much as a vectorised
loop over a hundred columns, and a signed index would be checked for being negative. Several short loops in place of one
are deliberate: LLVM vectorises a loop only up to eight checks that its arrays do not overlap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numba
import numpy as np

from ..atomic import atomic_write

_INNER = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}
_TILE = 16  # columns whose channels lie together in memory
_STEP = 64  # columns that a vectorised loop takes at once; rows are filled up to a multiple, which spares it the rest
_BIAS = 32767  # of stored distances
_NONE = -_BIAS - 1  # a threshold below all distances
_HIGHEST = 32767
_ROUNDS = 4  # of interpolation in the search for a threshold, before it falls back to equal parts
_NEAR, _FAR = np.float32(1), np.float32(4)  # of the first thresholds from the guess, in spacings of distances
_int16, _uint8, _u = np.int16, np.uint8, np.uint64


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
            with suppress(OSError), atomic_write(digests) as part:
                part.write_text(json.dumps(found()), encoding="utf-8")
        return result

    return call


@numba.njit(**_INNER)
def _squares(x, at, first, second, tiles, squares, to1, to2, n_tiles):
    """Squared distances of a frame of x, in two transpositions, to all frames in tiles; 24 values stay in registers."""
    a, c = _u(at + 12 - first), _u(at + 12 - second)
    a0, a1, a2, a3 = x[a], x[a + _u(1)], x[a + _u(2)], x[a + _u(3)]
    a4, a5, a6, a7 = x[a + _u(4)], x[a + _u(5)], x[a + _u(6)], x[a + _u(7)]
    a8, a9, a10, a11 = x[a + _u(8)], x[a + _u(9)], x[a + _u(10)], x[a + _u(11)]
    c0, c1, c2, c3 = x[c], x[c + _u(1)], x[c + _u(2)], x[c + _u(3)]
    c4, c5, c6, c7 = x[c + _u(4)], x[c + _u(5)], x[c + _u(6)], x[c + _u(7)]
    c8, c9, c10, c11 = x[c + _u(8)], x[c + _u(9)], x[c + _u(10)], x[c + _u(11)]
    norm = x[_u(at + 24)]
    for tile in range(_u(n_tiles)):
        b, o1, o2 = tile * _u(13 * _TILE), _u(to1) + tile * _u(_TILE), _u(to2) + tile * _u(_TILE)
        for j in range(_u(_TILE)):
            t = b + j
            b0, b1, b2 = tiles[t], tiles[t + _u(_TILE)], tiles[t + _u(2 * _TILE)]
            b3, b4, b5 = tiles[t + _u(3 * _TILE)], tiles[t + _u(4 * _TILE)], tiles[t + _u(5 * _TILE)]
            b6, b7, b8 = tiles[t + _u(6 * _TILE)], tiles[t + _u(7 * _TILE)], tiles[t + _u(8 * _TILE)]
            b9, b10, b11 = tiles[t + _u(9 * _TILE)], tiles[t + _u(10 * _TILE)], tiles[t + _u(11 * _TILE)]
            norms = _int16(norm + tiles[t + _u(12 * _TILE)])
            squares[o1 + j] = norms + (
                a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3 + a4 * b4 + a5 * b5
                + a6 * b6 + a7 * b7 + a8 * b8 + a9 * b9 + a10 * b10 + a11 * b11
            )  # fmt: skip
            squares[o2 + j] = norms + (
                c0 * b0 + c1 * b1 + c2 * b2 + c3 * b3 + c4 * b4 + c5 * b5
                + c6 * b6 + c7 * b7 + c8 * b8 + c9 * b9 + c10 * b10 + c11 * b11
            )  # fmt: skip


@numba.njit(**_INNER)
def _advance(sums, at, squares, new, old, m):
    """Squared distances of windows, kept by diagonal, one frame on: the last frames add, the first ones take away."""
    for j in range(m):
        sums[at + j] = _int16(sums[at + j] + _int16(squares[new + j] - squares[old + j]))


@numba.njit(**_INNER)
def _count(row, at, w, t0, t1, t2, t3):
    """The number of distances below each of four values: that is one operation less than `at most`."""
    n0 = n1 = n2 = n3 = _int16(0)
    for j in range(w):
        distance = row[at + j]
        n0 = _int16(n0 + (distance < t0))
        n1 = _int16(n1 + (distance < t1))
        n2 = _int16(n2 + (distance < t2))
        n3 = _int16(n3 + (distance < t3))
    return int(n0), int(n1), int(n2), int(n3)


@numba.njit(**_INNER)
def _threshold(row, at, w, n, k, guess, spacing):
    """The highest threshold that at most k of n distances reach, or one that the same ones reach; their spacing there.

    Counting is cheaper than sorting. The search starts at a guess with the expected difference of neighbouring
    distances, and goes on by interpolation between counts.
    """
    low, n_low, high, n_high = _NONE, 0, _HIGHEST, n
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
def _extend(row, at, w, threshold, thresholds, own, q, now, diagonal, wide, tall, one, penalty):
    """A row of Q where a gap's onset costs what its extension costs."""
    for j in range(w):
        best = max(max(q[diagonal + j], q[wide + j]), q[tall + j])
        recurs = row[at + j] <= min(threshold, thresholds[own + j])
        q[now + j] = best + one if recurs else best - min(best, penalty)


@numba.njit(**_INNER)
def _extend_penalised(row, at, w, threshold, thresholds, own, q, p, now, diagonal, wide, tall, one):
    """A row of Q where onset and extension of a gap differ, from rows of Q and penalised ones."""
    for j in range(w):
        q[now + j] = max(max(p[diagonal + j], p[wide + j]), p[tall + j])
    for j in range(w):
        best = max(max(q[diagonal + j], q[wide + j]), q[tall + j])
        q[now + j] = best + one if row[at + j] <= min(threshold, thresholds[own + j]) else q[now + j]


@numba.njit(**_INNER)
def _penalise(row, at, w, threshold, thresholds, own, q, p, now, onset, extension):
    """A row of Q less what a gap costs that follows each cell, not below 0."""
    for j in range(w):
        penalty = onset if row[at + j] <= min(threshold, thresholds[own + j]) else extension
        p[now + j] = q[now + j] - min(q[now + j], penalty)


@numba.njit(**_INNER)
def _raise(highest, own, q, now, w):
    """The highest value of Q of each column so far."""
    for j in range(w):
        highest[own + j] = max(highest[own + j], q[now + j])


@numba.njit(**_INNER)
def _mark(row, at, w, threshold, thresholds, own, recurrence, to):
    """A row of a recurrence matrix."""
    for j in range(w):
        recurrence[to + j] = row[at + j] <= min(threshold, thresholds[own + j])


@numba.njit(**_INNER)
def _neighbours(kappa, n_windows):
    """The number of nearest neighbours that a window may have: at most the share kappa, at least one."""
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
def _doubled(levels):
    """Levels (n, 12) times -2, each frame twice: any twelve in a row are a transposition; then its squared norm.

    Flat (n * 25,) of int16.
    """
    doubled = np.zeros(25 * levels.shape[0], np.int16)
    for i in range(levels.shape[0]):
        for channel in range(12):
            level = int(levels[i, channel])
            doubled[25 * i + channel] = doubled[25 * i + 12 + channel] = -2 * level
            doubled[25 * i + 24] += level * level
    return doubled


@numba.njit(**_INNER)
def _mean_squares(x, n, semitones, profile, m):
    """The mean squared distance of each frame of x to m others whose sum is `profile`, less their mean squared norm."""
    means = np.empty(n, np.float32)
    for i in range(n):
        product = 0
        for channel in range(12):
            product += int(x[25 * i + 12 - semitones + channel]) * profile[channel]
        means[i] = np.float32(x[25 * i + 24]) + np.float32(product) / np.float32(m)
    return means


@numba.njit(**_INNER)
def _pass(rows, columns, first, second, embedding, k, thresholds, units, last, recurrence):
    """One pass over the rows of a pair of prepared sequences, the first of which is transposed in two ways, upwards.

    The first pass fills `thresholds`, of both transpositions, one for each window of the rows. The last one takes those
    of its columns from there and returns both maxima of Q; it fills `recurrence` of the first transposition, unless
    that is empty.
    """
    one, onset, extension, n_thresholds = units[0], units[1], units[2], len(thresholds) // 2
    x, _, _, n = rows
    _, tiles, profile, m = columns
    n_tiles = tiles.shape[0] // (13 * _TILE)
    w = m - embedding + 1
    stride = embedding + n_tiles * _TILE  # of squares: as many rows, after as many columns of 0
    squares = np.zeros(2 * (embedding + 1) * stride, np.int16)
    n_sums = n + m + _STEP
    sums = np.full(2 * n_sums, _HIGHEST, np.int16)
    for s in range(2):
        sums[s * n_sums : s * n_sums + n + m] = -_BIAS
    width = -(-w // _STEP) * _STEP
    q = np.zeros(6 * (width + 2), units.dtype)  # of three rows for each transposition, after two columns of 0
    p = np.zeros(6 * (width + 2), units.dtype)
    highest = np.zeros(2 * width, units.dtype)
    means = (_mean_squares(x, n, first, profile, m), _mean_squares(x, n, second, profile, m))
    guesses, spacings = np.zeros(2, np.int64), np.full(2, np.float32(512) / np.float32(k))
    for i in range(n):
        new = i % (embedding + 1) * stride
        old = (i + 1) % (embedding + 1) * stride
        half = (embedding + 1) * stride
        _squares(x, 25 * i, first, second, tiles, squares, new + embedding, half + new + embedding, n_tiles)
        for s in range(2):
            of = s * n_sums + n - i  # of the diagonal that frame 0 of y is on
            _advance(sums, _u(of), squares, _u(s * half + new + embedding), _u(s * half + old), _u(m))
            sums[of + m] = _HIGHEST  # beyond the last column nothing is near
            if i < embedding - 1:
                continue
            at = _u(of + embedding - 1)
            if i >= embedding:
                guesses[s] += int(means[s][i] - means[s][i - embedding])
            threshold, spacings[s] = _threshold(sums, at, _u(width), w, k, guesses[s], spacings[s])
            guesses[s] = threshold
            if not last:
                thresholds[s * n_thresholds + i - embedding + 1] = threshold
                continue
            nearest, own = _int16(threshold), _u(s * width)
            now, one_back, two_back = 3 * s + i % 3, 3 * s + (i + 2) % 3, 3 * s + (i + 1) % 3
            now_at, wide, tall = _u(now * (width + 2) + 2), _u(one_back * (width + 2)), _u(two_back * (width + 2) + 1)
            moves = (wide + _u(1), wide, tall)  # by (1, 1), (1, 2), (2, 1)
            if onset == extension:
                _extend(sums, at, _u(width), nearest, thresholds, own, q, now_at, *moves, one, onset)
            else:
                _extend_penalised(sums, at, _u(width), nearest, thresholds, own, q, p, now_at, *moves, one)
                _penalise(sums, at, _u(width), nearest, thresholds, own, q, p, now_at, onset, extension)
            _raise(highest, own, q, now_at, _u(width))
            if s == 0 and recurrence.shape[0]:
                _mark(sums, at, _u(w), nearest, thresholds, own, recurrence, _u((i - embedding + 1) * w))
    return highest[:width].max(), highest[width:].max()


@numba.njit(**_INNER)
def _two_best_transpositions(x_profile, y_profile):
    """The two transpositions of x, upwards, whose profile (channels,) has the largest products with that of y."""
    best, first, second_best, second = -1, 0, -1, 0
    for semitones in range(12):
        product = 0
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
    """Sum over frames, (channels,)."""
    profile = np.zeros(levels.shape[1], np.int64)
    for i in range(levels.shape[0]):
        for channel in range(levels.shape[1]):
            profile[channel] += levels[i, channel]
    return profile


@numba.njit(**_INNER)
def _prepared(levels):
    """Of a sequence of 12 channels, what a pass needs of either side: doubled, in tiles, profile, number of frames."""
    return _doubled(levels), _tiled(levels), _profile(levels), levels.shape[0]


@numba.njit(**_INNER)
def _pair(query, candidate, first, second, embedding, kappa, units, recurrence):
    """The maxima of Q of two prepared sequences, the query transposed by `first` and by `second`."""
    n, m = query[3] - embedding + 1, candidate[3] - embedding + 1
    thresholds = np.full(2 * (-(-m // _STEP) * _STEP), _NONE, np.int16)
    down = (12 - first) % 12, (12 - second) % 12
    k_rows, k_columns = _neighbours(kappa, n), _neighbours(kappa, m)
    _pass(candidate, query, *down, embedding, k_rows, thresholds, units, False, recurrence)
    return _pass(query, candidate, first, second, embedding, k_columns, thresholds, units, True, recurrence)


@_entry
def longest_paths(query, candidates, offsets, groups, embedding, kappa, units, out):
    """Fill `out` (candidates, len(groups)) with the maxima of Q; 0 for candidates shorter than the embedding.

    All groups of a candidate are in one of two transpositions, that in which their maxima have the larger sum.

    `query` (n, channels) and `candidates` (all frames, channels) are uint8 levels; `offsets` say where each candidate
    begins, and where the last one ends; `groups` which twelve channels are aligned. `units` are what a recurrence
    adds, and what onset and extension of a gap take away, in the type that Q is computed in.
    """
    n_candidates, profile = offsets.shape[0] - 1, _profile(query)
    transpositions = np.empty((n_candidates, 2), np.int64)
    for c in range(n_candidates):
        transpositions[c] = _two_best_transpositions(profile, _profile(candidates[offsets[c] : offsets[c + 1]]))
    nowhere = np.zeros(0, np.bool_)
    maxima = np.zeros((n_candidates, groups.shape[0], 2), units.dtype)
    for g in range(groups.shape[0]):
        channels = slice(12 * groups[g], 12 * groups[g] + 12)
        x = _prepared(query[:, channels])
        for c in range(n_candidates):
            if offsets[c + 1] - offsets[c] >= embedding:
                y = _prepared(candidates[offsets[c] : offsets[c + 1], channels])
                first, second = transpositions[c]
                maxima[c, g, 0], maxima[c, g, 1] = _pair(x, y, first, second, embedding, kappa, units, nowhere)
    for c in range(n_candidates):
        better = int(maxima[c, :, 1].sum() > maxima[c, :, 0].sum())
        for g in range(groups.shape[0]):
            out[c, g] = maxima[c, g, better]


@_entry
def recurrence_of(query, candidate, group, embedding, kappa, units, recurrence):
    """The transposition of the query that `longest_paths` takes for all groups, and the maximum of Q of one in it.

    Fills `recurrence` (windows of both) of that group.
    """
    first, second = _two_best_transpositions(_profile(query), _profile(candidate))
    of_first = of_second = 0.0
    for g in range(query.shape[1] // 12):
        channels = slice(12 * g, 12 * g + 12)
        x, y = _prepared(query[:, channels]), _prepared(candidate[:, channels])
        maxima = _pair(x, y, first, second, embedding, kappa, units, np.zeros(0, np.bool_))
        of_first, of_second = of_first + maxima[0], of_second + maxima[1]
    best = second if of_second > of_first else first
    channels = slice(12 * group, 12 * group + 12)
    x, y = _prepared(query[:, channels]), _prepared(candidate[:, channels])
    longest, _ = _pair(x, y, best, best, embedding, kappa, units, recurrence.reshape(-1))
    return best, longest


@numba.njit(**_INNER)
def _move(recurrence, at, w, q, p, diagonal, wide, tall, moves):
    """The move to each cell of a row: by (1, 1), (2, 1) or (1, 2), the first of equals; 0 where a path begins."""
    for j in range(w):
        recurs = recurrence[at + j]
        straight = q[diagonal + j] if recurs else p[diagonal + j]
        steep = q[tall + j] if recurs else p[tall + j]
        flat = q[wide + j] if recurs else p[wide + j]
        best = max(max(straight, steep), flat)
        move = _uint8(1) if straight == best else (_uint8(2) if steep == best else _uint8(3))
        moves[at + j] = move if best > 0 else _uint8(0)


@numba.njit(**_INNER)
def _reach(recurrence, at, w, q, p, now, diagonal, wide, tall, one):
    """A row of Q, of a recurrence matrix."""
    for j in range(w):
        continued = max(max(q[diagonal + j], q[wide + j]), q[tall + j]) + one
        broken = max(max(p[diagonal + j], p[wide + j]), p[tall + j])
        q[now + j] = continued if recurrence[at + j] else broken


@numba.njit(**_INNER)
def _leave(recurrence, at, w, q, p, now, onset, extension):
    """A row of Q less what a gap costs that follows each cell, not below 0, of a recurrence matrix."""
    for j in range(w):
        p[now + j] = q[now + j] - min(q[now + j], onset if recurrence[at + j] else extension)


@numba.njit(**_INNER)
def _highest(q, now, w, highest):
    """The highest value of a row of Q, or the one given."""
    for j in range(w):
        highest = max(highest, q[now + j])
    return highest


@_entry
def trace(recurrence, units, moves, path):
    """The maximum of Q of a recurrence matrix, and the number of cells of the path that ends there, gaps included.

    Fills `moves` (uint8, the shape of the matrix) with the way that each cell is reached, and `path` (at least the
    lesser side, 2) from its end to its begin. Of equal maxima the first one counts, row by row.
    """
    n, m = recurrence.shape
    one, onset, extension = units[0], units[1], units[2]
    recurs, moved = recurrence.reshape(-1), moves.reshape(-1)
    q = np.zeros(3 * (m + 2), units.dtype)  # of three rows, after two columns of 0
    p = np.zeros(3 * (m + 2), units.dtype)
    best, end_i, end_j = one - one, 0, 0
    for i in range(n):
        at, now, wide = _u(i * m), _u(i % 3 * (m + 2) + 2), _u((i + 2) % 3 * (m + 2))
        back = (wide + _u(1), wide, _u((i + 1) % 3 * (m + 2) + 1))
        _move(recurs, at, _u(m), q, p, *back, moved)
        _reach(recurs, at, _u(m), q, p, now, *back, one)
        _leave(recurs, at, _u(m), q, p, now, onset, extension)
        highest = _highest(q, now, _u(m), q[0])
        if highest > best:
            best, end_i, end_j = highest, i, 0
            while q[now + _u(end_j)] < best:
                end_j += 1
    length = 0
    if best > 0:
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
