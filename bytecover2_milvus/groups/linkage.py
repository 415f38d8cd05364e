"""Groups of tracks by average linkage of the pairs of a `Pairs`, on disk.

At first every track with a link is a group of its own; a *link* is a wanted pair that counts for at least the least
probability. Then the two groups with the highest mean over all wanted pairs between them become one, as long as that
mean reaches the least probability. It is UPGMA (R. R. Sokal, C. D. Michener, "A statistical method for evaluating
systematic relationships", 1958) over those pairs that were compared.

A single wrong link does not join two works: the pairs that contradict it count as much. Where it is stronger than all
right ones it would be followed first, when there are none between two single tracks, so a link is struck before if its
own tests contradict it (`Pairs.strike_links`).

Equal means are settled by the ids of the rows, which are hashes of what the files hold: the result depends neither on
the order of the tracks nor on earlier runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pairs import Pairs

# Places are the order of ids. All is written to SQLite's temporary file, and made anew by each run.
_TABLES = """
DROP TABLE IF EXISTS temp.members;
DROP TABLE IF EXISTS temp.means;
CREATE TEMP TABLE members (number INTEGER PRIMARY KEY, place INTEGER NOT NULL UNIQUE, head INTEGER NOT NULL);
CREATE TEMP TABLE means (
    a INTEGER NOT NULL, b INTEGER NOT NULL, total REAL NOT NULL, n INTEGER NOT NULL, mean REAL NOT NULL,
    PRIMARY KEY (a, b)
) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX temp.members_by_head ON members (head);
CREATE INDEX temp.means_by_b ON means (b);
CREATE INDEX temp.means_by_mean ON means (mean DESC, a, b);
"""


def link_groups(pairs: Pairs, min_probability: float) -> None:
    """Find the groups; `groups_of` reads them."""
    with pairs.errors(), pairs.db:
        db = pairs.db
        db.executescript(_TABLES)
        db.execute(
            "INSERT INTO members SELECT number, row_number() OVER (ORDER BY id), 0 FROM tracks WHERE number IN ("
            " SELECT first FROM pairs WHERE wanted AND counted >= ?1"
            " UNION SELECT second FROM pairs WHERE wanted AND counted >= ?1)",
            [min_probability],
        )
        db.execute("UPDATE members SET head = place")
        db.execute(
            "INSERT INTO means SELECT min(a.place, b.place), max(a.place, b.place), counted, 1, counted"
            " FROM pairs JOIN members a ON a.number = first JOIN members b ON b.number = second"
            " WHERE wanted AND counted IS NOT NULL"
        )
        db.executescript(_INDEXES)
        closest = "SELECT a, b FROM means WHERE mean >= ? ORDER BY mean DESC, a, b LIMIT 1"
        while found := db.execute(closest, [min_probability]).fetchone():
            _join(pairs, *found)


def _join(pairs: Pairs, group: int, other: int) -> None:
    """Let the members of `other` be of `group`, which has the lesser head, and so what lies between them and others."""
    db = pairs.db
    db.execute("UPDATE members SET head = ? WHERE head = ?", [group, other])
    moved = db.execute(
        "SELECT CASE a WHEN ?1 THEN b ELSE a END, total, n FROM means WHERE a = ?1 OR b = ?1 ORDER BY 1", [other]
    ).fetchall()
    db.execute("DELETE FROM means WHERE a = ?1 OR b = ?1", [other])
    db.executemany(
        "INSERT INTO means VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET total = total + excluded.total,"
        " n = n + excluded.n, mean = (total + excluded.total) / (n + excluded.n)",
        ((min(group, third), max(group, third), total, n, total / n) for third, total, n in moved if third != group),
    )


def count_groups(pairs: Pairs) -> tuple[int, int]:
    """The number of groups of two tracks or more, and of the tracks in them."""
    with pairs.errors():
        sizes = "SELECT count(*) n FROM members GROUP BY head HAVING n > 1"
        n_groups, n_tracks = pairs.db.execute(f"SELECT count(*), coalesce(sum(n), 0) FROM ({sizes})").fetchone()
        return int(n_groups), int(n_tracks)


def groups_of(pairs: Pairs) -> Iterator[list[int]]:
    """The numbers of the tracks of each group of two or more, the largest group first."""
    with pairs.errors():
        heads = pairs.db.execute(
            "SELECT head, count(*) n FROM members GROUP BY head HAVING n > 1 ORDER BY n DESC, head"
        )
        for head, _ in heads:
            members = pairs.db.execute("SELECT number FROM members WHERE head = ? ORDER BY place", [head])
            yield [number for (number,) in members]


_UNEXPLAINED = """FROM pairs CROSS JOIN members a ON a.number = first
CROSS JOIN members b ON b.number = second AND b.head = a.head
WHERE (first, second) > (?, ?) AND wanted AND probability >= ? AND evidence IS NULL"""


def count_unexplained(pairs: Pairs, min_probability: float) -> int:
    """The number of links within groups that have no evidence."""
    with pairs.errors():
        return int(pairs.db.execute(f"SELECT count(*) {_UNEXPLAINED}", [0, 0, min_probability]).fetchone()[0])


def unexplained(
    pairs: Pairs, min_probability: float, after: tuple[int, int], limit: int
) -> list[tuple[int, int, float, bytes]]:
    """The next links within groups that have no evidence: both numbers, similarity, alignment scores."""
    with pairs.errors():
        return pairs.db.execute(
            f"SELECT first, second, similarity, alignment {_UNEXPLAINED} ORDER BY first, second LIMIT ?",
            [*after, min_probability, limit],
        ).fetchall()


def links_of(
    pairs: Pairs, members: list[int], min_probability: float
) -> list[tuple[int, int, float, float, float, str]]:
    """The links among the tracks of a group: both numbers, similarity, probability, score, evidence."""
    with pairs.errors():
        return pairs.db.execute(
            "SELECT first, second, similarity, probability, score, evidence FROM pairs"
            " WHERE first IN (SELECT value FROM json_each(?1)) AND second IN (SELECT value FROM json_each(?1))"
            " AND wanted AND probability >= ?2",
            [json.dumps(members), min_probability],
        ).fetchall()
