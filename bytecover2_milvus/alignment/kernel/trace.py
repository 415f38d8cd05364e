"""The longest path through a recurrence matrix, cell by cell."""

from __future__ import annotations

import numpy as np

from .compiled import entry, inner

_uint8, _u = np.uint8, np.uint64


@entry
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


@inner
def _move(recurrence, at, w, q, p, diagonal, wide, tall, moves):
    """Fill a row of moves: the best way to each cell, by (1, 1), (2, 1) or (1, 2), or 0 where a path begins.

    Of equally good ones the first counts.
    """
    for j in range(w):
        recurs = recurrence[at + j]
        straight = q[diagonal + j] if recurs else p[diagonal + j]
        steep = q[tall + j] if recurs else p[tall + j]
        flat = q[wide + j] if recurs else p[wide + j]
        best = max(max(straight, steep), flat)
        move = _uint8(1) if straight == best else (_uint8(2) if steep == best else _uint8(3))
        moves[at + j] = move if best > 0 else _uint8(0)


@inner
def _reach(recurrence, at, w, q, p, now, diagonal, wide, tall, one):
    """Compute a row of Q."""
    for j in range(w):
        continued = max(max(q[diagonal + j], q[wide + j]), q[tall + j]) + one
        broken = max(max(p[diagonal + j], p[wide + j]), p[tall + j])
        q[now + j] = continued if recurrence[at + j] else broken


@inner
def _leave(recurrence, at, w, q, p, now, onset, extension):
    """Compute a row of Q less the penalty of a gap that follows each cell, not below 0."""
    for j in range(w):
        p[now + j] = q[now + j] - min(q[now + j], onset if recurrence[at + j] else extension)


@inner
def _highest(q, now, w, highest):
    """The highest value of a row of Q, at least `highest`."""
    for j in range(w):
        highest = max(highest, q[now + j])
    return highest
