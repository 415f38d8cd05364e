"""Pairs of the tracks of one collection in a SQLite file: which may be one work, and what their alignment gave.

The file has what pairs are aligned by, too, so that a run needs of the collection only what has changed, and pairs are
aligned once. What depends on other tracks, the statistics and so the verdicts, is renewed by every run. All is on disk,
and a batch is there whole or not at all: a run that was killed goes on with the next batch.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import pack, unpack
from ..errors import CollectionMismatch, OutputError

FORMAT = "2"
FROM_INDEX, FROM_LINKS = 1, 2  # why a pair is wanted; 0: it was, in another run
ROWS_PER_PAGE = 10_000
PARTNERS = 3  # of a linked track, beside the other one: the other one is compared with them, too

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tracks (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, track_id TEXT NOT NULL, seen INTEGER NOT NULL,
    searched INTEGER NOT NULL DEFAULT 0, statistics BLOB NOT NULL, embedding BLOB NOT NULL, n_frames INTEGER NOT NULL,
    chroma BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS tracks_by_name ON tracks (track_id);
CREATE INDEX IF NOT EXISTS tracks_to_search ON tracks (number) WHERE NOT searched;
CREATE TABLE IF NOT EXISTS pairs (
    first INTEGER NOT NULL, second INTEGER NOT NULL, wanted INTEGER NOT NULL, similarity REAL, alignment BLOB,
    score REAL, probability REAL, counted REAL, evidence TEXT, PRIMARY KEY (first, second), CHECK (first < second)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pairs_to_align ON pairs (first, second) WHERE wanted AND alignment IS NULL;
CREATE INDEX IF NOT EXISTS pairs_by_second ON pairs (second);
"""
_ON_CONFLICT = "ON CONFLICT DO UPDATE SET wanted = excluded.wanted WHERE NOT wanted"


@dataclass(frozen=True, eq=False, slots=True)
class Sound:
    """Embedding and chroma of a track, by which two are compared."""

    id: str  # of its row
    track_id: str
    embedding: NDArray[np.float32]  # (D,)
    levels: NDArray[np.uint8]  # (n_frames, channels)
    statistics: NDArray[np.float64]  # (kinds, 2), as `Verdict.statistics` gives them


Pair = tuple[int, int]  # numbers of two tracks, the lesser first


class Pairs:
    """The file of pairs, which one process may have open at a time.

    Parameters
    ----------
    path : Path
        It is made if it does not exist.
    facts : mapping of str to str
        Collection, model and alignment of the pairs: a file with other facts is refused.
    channels : int
        Channels of the chroma.

    Raises
    ------
    CollectionMismatch
        If the file is of another collection or model.
    OutputError
        If it cannot be written or is something else, also in every method.
    """

    def __init__(self, path: Path, facts: Mapping[str, str], channels: int) -> None:
        self.path = path
        self._channels = channels
        with self.errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))
            self.db = sqlite3.connect(path, timeout=0.0)
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.db.executescript(_TABLES)
            facts = {"format": FORMAT, **facts}
            with self.db:
                self.db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts.items())
                self.db.executemany("INSERT OR IGNORE INTO facts VALUES (?, '0')", [("run",), ("candidates",)])
            stored = dict(self.db.execute("SELECT name, value FROM facts"))
        other = [
            f"{name} {stored.get(name)!r}, not {value!r}" for name, value in facts.items() if stored[name] != value
        ]
        if other:
            self.close()
            raise CollectionMismatch(
                f"{path}: its pairs are of {other[0]}; name another file with --state, or delete it"
            )
        self._run = int(stored["run"]) + 1
        with self.errors(), self.db:
            self._set("run", self._run)

    def close(self) -> None:
        self.db.close()

    def count(self, table: str, where: str = "1") -> int:
        with self.errors():
            return int(self.db.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])

    def see(self, rows: Mapping[str, tuple[str, NDArray[np.float64]]]) -> list[str]:
        """Note that rows are there, track_ids and statistics by id; the ids of those whose sound is not known."""
        told = [(track_id, self._run, statistics.tobytes(), id) for id, (track_id, statistics) in rows.items()]
        with self.errors(), self.db:
            self.db.executemany("UPDATE tracks SET track_id = ?, seen = ?, statistics = ? WHERE id = ?", told)
            known = self.db.execute(
                "SELECT id FROM tracks WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(list(rows))]
            )
            return sorted(rows.keys() - {id for (id,) in known})

    def add(self, sounds: Sequence[Sound]) -> None:
        """Store the sounds of new tracks; what was searched before is to be searched again."""
        with self.errors(), self.db:
            self.db.executemany(
                "INSERT INTO tracks (id, track_id, seen, statistics, embedding, n_frames, chroma)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        s.id,
                        s.track_id,
                        self._run,
                        s.statistics.tobytes(),
                        s.embedding.tobytes(),
                        len(s.levels),
                        pack(s.levels),
                    )
                    for s in sounds
                ),
            )
            if sounds:
                self._search_again()

    def forget_others(self) -> None:
        """Delete the tracks that this run has not seen, with their pairs."""
        with self.errors(), self.db:
            self.db.execute("CREATE TEMP TABLE gone AS SELECT number FROM tracks WHERE seen != ?", [self._run])
            for column in ("first", "second"):
                self.db.execute(f"DELETE FROM pairs WHERE {column} IN (SELECT number FROM gone)")
            if self.db.execute("DELETE FROM tracks WHERE number IN (SELECT number FROM gone)").rowcount:
                self._search_again()
            self.db.execute("DROP TABLE gone")

    def search_with(self, candidates: int) -> None:
        """Let `unsearched` give all tracks if the last search was for another number of candidates."""
        with self.errors(), self.db:
            if self.db.execute("SELECT value FROM facts WHERE name = 'candidates'").fetchone()[0] != str(candidates):
                self._search_again()
                self._set("candidates", candidates)

    def _search_again(self) -> None:
        self.db.execute("UPDATE tracks SET searched = 0 WHERE searched")
        self.db.execute("UPDATE pairs SET wanted = 0 WHERE wanted")

    def unsearched(self, limit: int) -> list[tuple[int, str, NDArray[np.float32]]]:
        """Number, track_id and embedding of tracks whose candidates are to be searched."""
        with self.errors():
            found = self.db.execute(
                "SELECT number, track_id, embedding FROM tracks WHERE NOT searched ORDER BY number LIMIT ?", [limit]
            )
            return [(number, track_id, np.frombuffer(data, np.float32)) for number, track_id, data in found]

    def numbers_of(self, track_ids: Collection[str]) -> dict[str, int]:
        """The numbers of tracks by track_id; those that take no part are not there."""
        with self.errors():
            return dict(
                self.db.execute(
                    "SELECT track_id, number FROM tracks WHERE track_id IN (SELECT value FROM json_each(?))",
                    [json.dumps(list(track_ids))],
                )
            )

    def ids_of(self, numbers: Collection[int]) -> dict[int, str]:
        """The ids of the rows of tracks, by number."""
        with self.errors():
            return dict(
                self.db.execute(
                    "SELECT number, id FROM tracks WHERE number IN (SELECT value FROM json_each(?))",
                    [json.dumps(list(numbers))],
                )
            )

    def want_candidates(self, searched: Iterable[int], pairs: Iterable[Pair]) -> None:
        """Note that the candidates of some tracks were searched, and which pairs these are."""
        with self.errors(), self.db:
            told = ((first, second, FROM_INDEX) for first, second in pairs)
            self.db.executemany(f"INSERT INTO pairs (first, second, wanted) VALUES (?, ?, ?) {_ON_CONFLICT}", told)
            self.db.executemany("UPDATE tracks SET searched = 1 WHERE number = ?", ((number,) for number in searched))

    def want_tests(self, min_probability: float) -> None:
        """Let every link be tested: each of its tracks makes pairs with the `PARTNERS` closest of the other, too.

        A link is a wanted pair of at least `min_probability`. `strike_links` reads the tests when they are judged.
        """
        with self.errors(), self.db:
            self.db.execute("UPDATE pairs SET wanted = 0 WHERE wanted = ?", [FROM_LINKS])
            self.db.execute("CREATE TEMP TABLE tests (a INTEGER, b INTEGER, first INTEGER, second INTEGER)")
            links = self.db.execute(  # sorted, and so read, before the first is given
                "SELECT a, b FROM (SELECT first a, second b, score, probability, wanted FROM pairs"
                " UNION ALL SELECT second, first, score, probability, wanted FROM pairs) JOIN tracks ON number = b"
                " WHERE wanted AND probability >= ? ORDER BY a, score DESC, id",
                [min_probability],
            )
            for track, linked in groupby(links, key=itemgetter(0)):
                others = [other for _, other in linked]
                tests = (
                    (min(track, other), max(track, other), min(partner, other), max(partner, other))
                    for other in others
                    for partner in [x for x in others[: PARTNERS + 1] if x != other][:PARTNERS]
                )
                self.db.executemany("INSERT INTO tests VALUES (?, ?, ?, ?)", tests)
            self.db.execute(
                "INSERT INTO pairs (first, second, wanted) SELECT DISTINCT first, second, ? FROM tests WHERE true"
                f" {_ON_CONFLICT}",
                [FROM_LINKS],
            )

    def strike_links(self, min_probability: float) -> None:
        """Let links that fail their tests count for less: for the mean of all these probabilities."""
        with self.errors(), self.db:
            self.db.execute("UPDATE pairs SET counted = probability WHERE wanted")
            self.db.execute(
                "UPDATE pairs SET counted = tested.mean FROM ("
                " SELECT a, b, round((link.probability + sum(test.probability)) / (1 + count(*)), 9) mean FROM tests"
                " JOIN pairs link ON link.first = a AND link.second = b"
                " JOIN pairs test ON test.first = tests.first AND test.second = tests.second GROUP BY a, b) tested"
                " WHERE pairs.first = tested.a AND pairs.second = tested.b AND tested.mean < ?",
                [min_probability],
            )
            self.db.execute("DROP TABLE tests")

    def unaligned(self, limit: int) -> list[Pair]:
        """Wanted pairs that are to be aligned."""
        with self.errors():
            return self.db.execute(
                "SELECT first, second FROM pairs WHERE wanted AND alignment IS NULL ORDER BY first, second LIMIT ?",
                [limit],
            ).fetchall()

    def sounds(self, numbers: Collection[int]) -> dict[int, Sound]:
        """The sounds of tracks by number."""
        with self.errors():
            found = self.db.execute(
                "SELECT number, id, track_id, embedding, n_frames, chroma, statistics FROM tracks"
                " WHERE number IN (SELECT value FROM json_each(?))",
                [json.dumps(sorted(numbers))],
            )
            return {number: self._sound(*columns) for number, *columns in found}

    def _sound(
        self, id: str, track_id: str, embedding: bytes, n_frames: int, chroma: bytes, statistics: bytes
    ) -> Sound:
        levels = unpack(chroma, n_frames, self._channels, track_id)
        known = np.frombuffer(statistics, np.float64).reshape(-1, 2)
        return Sound(id, track_id, np.frombuffer(embedding, np.float32), levels, known)

    def store_alignments(self, aligned: Iterable[tuple[Pair, float, NDArray[np.float32]]]) -> None:
        """Store pairs, their similarities and their alignment scores (groups,)."""
        told = ((similarity, scores.tobytes(), *pair) for pair, similarity, scores in aligned)
        with self.errors(), self.db:
            self.db.executemany("UPDATE pairs SET similarity = ?, alignment = ? WHERE first = ? AND second = ?", told)

    def aligned(self, why: int) -> Iterator[list[tuple[int, int, float, bytes, bytes, bytes, int]]]:
        """Pairs that are wanted for a reason, by pages.

        Numbers, similarity, alignment scores, the statistics of both, and the frames of the shorter one.
        """
        last = (0, 0)
        while True:
            with self.errors():
                page = self.db.execute(
                    "SELECT first, second, similarity, alignment, a.statistics, b.statistics,"
                    " min(a.n_frames, b.n_frames) FROM pairs"
                    " JOIN tracks a ON a.number = first JOIN tracks b ON b.number = second"
                    " WHERE (first, second) > (?, ?) AND wanted = ? AND alignment IS NOT NULL"
                    " ORDER BY first, second LIMIT ?",
                    [*last, why, ROWS_PER_PAGE],
                ).fetchall()
            if not page:
                return
            yield page
            last = page[-1][:2]

    def store_verdicts(self, judged: Iterable[tuple[float, float, int, int]]) -> None:
        """Store scores and probabilities of pairs."""
        with self.errors(), self.db:
            self.db.executemany("UPDATE pairs SET score = ?, probability = ? WHERE first = ? AND second = ?", judged)

    def store_evidence(self, found: Iterable[tuple[Pair, Any]]) -> None:
        """Store evidence of pairs, as JSON."""
        with self.errors(), self.db:
            self.db.executemany(
                "UPDATE pairs SET evidence = ? WHERE first = ? AND second = ?",
                ((json.dumps(evidence), *pair) for pair, evidence in found),
            )

    def _set(self, name: str, value: object) -> None:
        self.db.execute("UPDATE facts SET value = ? WHERE name = ?", [str(value), name])

    @contextmanager
    def errors(self) -> Iterator[None]:
        """SQLite's errors in one line."""
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                hint = "another run is using it"
            elif "malformed" in str(error) or "not a database" in str(error):
                hint = "it is damaged or something else: name another file with --state, or delete it"
            else:
                hint = "choose another place"
            raise OutputError(f"{self.path}: {error}; {hint}") from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error
