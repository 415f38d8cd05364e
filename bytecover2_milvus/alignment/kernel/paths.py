"""The recurrence of two chroma sequences, row by row, and the length of the longest path through it.

No cell depends on another one of its row, so rows are loops that the compiler vectorises; the two transpositions of a
pair share the loads of a row. The state is a few rows: memory grows with the lengths, not with their product.
Each pair is passed over twice, once for the thresholds of the columns, once for all the rest; that is cheaper than to
keep the distances.
"""

from __future__ import annotations

import numpy as np

from .compiled import entry, inner
from .distances import BIAS, HIGHEST, TILE, advance_windows, doubled, frame_distances, mean_distances, tiled
from .threshold import NONE, find_threshold, n_neighbours

_STEP = 64  # columns that a vectorised loop takes at once; rows are filled up to a multiple, which spares it the rest
_int16, _u = np.int16, np.uint64


@entry
def longest_paths(query, candidates, offsets, groups, embedding, kappa, units, out):
    """Fill `out` (candidates, len(groups), 2) with the maxima of Q in the two best transpositions of all channels.

    They are 0 for candidates shorter than the embedding.

    `query` (n, channels) and `candidates` (all frames, channels) are uint8 levels; `offsets` say where each candidate
    begins, and where the last one ends; `groups` which twelve channels are aligned. `units` are what a recurrence
    adds, and what onset and extension of a gap take away, in the type that Q is computed in.
    """
    n_candidates, profile = offsets.shape[0] - 1, _profile(query)
    transpositions = np.empty((n_candidates, 2), np.int64)
    for c in range(n_candidates):
        transpositions[c] = _two_best_transpositions(profile, _profile(candidates[offsets[c] : offsets[c + 1]]))
    nowhere = np.zeros(0, np.bool_)
    for g in range(groups.shape[0]):
        channels = slice(12 * groups[g], 12 * groups[g] + 12)
        x = _prepared(query[:, channels])
        for c in range(n_candidates):
            if offsets[c + 1] - offsets[c] >= embedding:
                y = _prepared(candidates[offsets[c] : offsets[c + 1], channels])
                first, second = transpositions[c]
                out[c, g, 0], out[c, g, 1] = _pair(x, y, first, second, embedding, kappa, units, nowhere)


@entry
def recurrence_of(query, candidate, group, embedding, kappa, units, recurrence):
    """The better transposition of the query for all groups together, and the maximum of Q of one in it.

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


@inner
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


@inner
def _profile(levels):
    """Sum over frames, (channels,)."""
    profile = np.zeros(levels.shape[1], np.int64)
    for i in range(levels.shape[0]):
        for channel in range(levels.shape[1]):
            profile[channel] += levels[i, channel]
    return profile


@inner
def _prepared(levels):
    """A sequence (n, 12) as a pass needs it: for the rows, for the columns, its profile, its number of frames."""
    return doubled(levels), tiled(levels), _profile(levels), levels.shape[0]


@inner
def _pair(query, candidate, first, second, embedding, kappa, units, recurrence):
    """The maxima of Q of two prepared sequences, the query transposed by `first` and by `second`."""
    n, m = query[3] - embedding + 1, candidate[3] - embedding + 1
    thresholds = np.full(2 * (-(-m // _STEP) * _STEP), NONE, np.int16)
    down = (12 - first) % 12, (12 - second) % 12
    k_rows, k_columns = n_neighbours(kappa, n), n_neighbours(kappa, m)
    _pass(candidate, query, *down, embedding, k_rows, thresholds, units, False, recurrence)
    return _pass(query, candidate, first, second, embedding, k_columns, thresholds, units, True, recurrence)


@inner
def _pass(rows, columns, first, second, embedding, k, thresholds, units, last, recurrence):
    """One pass over the rows of a pair of prepared sequences, the first of which is transposed in two ways, upwards.

    The first pass fills `thresholds`, of both transpositions, one for each window of the rows. The last one takes those
    of its columns from there and returns both maxima of Q; it fills `recurrence` of the first transposition, unless
    that is empty.
    """
    one, onset, extension, n_thresholds = units[0], units[1], units[2], len(thresholds) // 2
    x, _, _, n = rows
    _, tiles, profile, m = columns
    n_tiles = tiles.shape[0] // (13 * TILE)
    w = m - embedding + 1
    stride = embedding + n_tiles * TILE  # of squares: as many rows, after as many columns of 0
    squares = np.zeros(2 * (embedding + 1) * stride, np.int16)
    n_sums = n + m + _STEP
    sums = np.full(2 * n_sums, HIGHEST, np.int16)
    for s in range(2):
        sums[s * n_sums : s * n_sums + n + m] = -BIAS
    width = -(-w // _STEP) * _STEP
    q = np.zeros(6 * (width + 2), units.dtype)  # of three rows for each transposition, after two columns of 0
    p = np.zeros(6 * (width + 2), units.dtype)
    highest = np.zeros(2 * width, units.dtype)
    means = (mean_distances(x, n, first, profile, m), mean_distances(x, n, second, profile, m))
    guesses, spacings = np.zeros(2, np.int64), np.full(2, np.float32(512) / np.float32(k))
    for i in range(n):
        new = i % (embedding + 1) * stride
        old = (i + 1) % (embedding + 1) * stride
        half = (embedding + 1) * stride
        frame_distances(x, 25 * i, first, second, tiles, squares, new + embedding, half + new + embedding, n_tiles)
        for s in range(2):
            of = s * n_sums + n - i  # of the diagonal that frame 0 of y is on
            advance_windows(sums, _u(of), squares, _u(s * half + new + embedding), _u(s * half + old), _u(m))
            sums[of + m] = HIGHEST  # beyond the last column nothing is near
            if i < embedding - 1:
                continue
            at = _u(of + embedding - 1)
            if i >= embedding:
                guesses[s] += int(means[s][i] - means[s][i - embedding])
            threshold, spacings[s] = find_threshold(sums, at, _u(width), w, k, guesses[s], spacings[s])
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


@inner
def _extend(row, at, w, threshold, thresholds, own, q, now, diagonal, wide, tall, one, penalty):
    """Compute a row of Q where a gap's onset costs what its extension costs."""
    for j in range(w):
        best = max(max(q[diagonal + j], q[wide + j]), q[tall + j])
        recurs = row[at + j] <= min(threshold, thresholds[own + j])
        q[now + j] = best + one if recurs else best - min(best, penalty)


@inner
def _extend_penalised(row, at, w, threshold, thresholds, own, q, p, now, diagonal, wide, tall, one):
    """Compute a row of Q where onset and extension of a gap differ, from rows of Q and of Q less penalties."""
    for j in range(w):
        q[now + j] = max(max(p[diagonal + j], p[wide + j]), p[tall + j])
    for j in range(w):
        best = max(max(q[diagonal + j], q[wide + j]), q[tall + j])
        q[now + j] = best + one if row[at + j] <= min(threshold, thresholds[own + j]) else q[now + j]


@inner
def _penalise(row, at, w, threshold, thresholds, own, q, p, now, onset, extension):
    """Compute a row of Q less the penalty of a gap that follows each cell, not below 0."""
    for j in range(w):
        penalty = onset if row[at + j] <= min(threshold, thresholds[own + j]) else extension
        p[now + j] = q[now + j] - min(q[now + j], penalty)


@inner
def _raise(highest, own, q, now, w):
    """Raise the highest values of Q in each column so far to those of a row."""
    for j in range(w):
        highest[own + j] = max(highest[own + j], q[now + j])


@inner
def _mark(row, at, w, threshold, thresholds, own, recurrence, to):
    """Fill a row of the recurrence matrix."""
    for j in range(w):
        recurrence[to + j] = row[at + j] <= min(threshold, thresholds[own + j])
