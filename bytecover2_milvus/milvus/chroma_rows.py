"""The second stage of a `TrackCollection`: chroma and statistics of its rows, and its cohort.

Whole tracks have chroma, parts of them do not. A collection that an older version made, or a bundle without a note map
filled, has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..alignment.qmax import ALIGNMENT
from ..errors import CollectionError, CollectionMismatch
from .alias import set_property
from .cohort import SIZE, CohortTrack, StoredChroma, cohort_tracks
from .filters import and_filter, quote
from .properties import CHROMA_CHANNELS, CHROMA_ID, FULL_COHORT
from .schema import FEATURES, SECOND_STAGE, WHOLE_TRACKS, Features, read_features
from .stored_rows import StoredRows

if TYPE_CHECKING:
    from .properties import SecondStage

HAS_CHROMA = 'chroma != ""'  # as filters
NO_CHROMA = 'chroma == ""'
LACKS_CHROMA = f"{NO_CHROMA} and {WHOLE_TRACKS}"
ROWS_PER_READ = 250  # at most 64 kB each; messages are of 64 MiB at most
_KEY_DIGITS = 12  # hexadecimal, which tell where an id stands among all


class ChromaRows(StoredRows):
    """The part of `TrackCollection` that holds the second stage."""

    _opened_as: str  # the name or alias that it was opened by

    def _read_second_stage(self, description: Mapping[str, Any]) -> None:
        self.fields = [entry["name"] for entry in description["fields"]]
        there = set(SECOND_STAGE) <= set(self.fields)
        self.chroma_id: str = description["properties"].get(CHROMA_ID, "") if there else ""
        self.has_full_cohort = description["properties"].get(FULL_COHORT) == str(ALIGNMENT)
        self.chroma_channels = int(description["properties"].get(CHROMA_CHANNELS, 0)) if self.chroma_id else 0

    @property
    def has_chroma(self) -> bool:
        """True if it has a second stage: its tracks can have chroma."""
        return bool(self.chroma_id)

    def why_no_second_stage(self, model: SecondStage) -> str:
        """The reason why chroma of `model` cannot be aligned with what is stored, and what to do; "" where it can."""
        if not model.chroma_id:
            return "this bundle has no note map, and so no second stage"
        if self.chroma_id == model.chroma_id:
            return ""
        whose = f"its second stage is of note map {self.chroma_id}, not of {model.chroma_id}"
        what = whose if self.chroma_id else "it has no second stage"
        return f"{self._opened_as}: {what}; `collections promote {self._opened_as}` gives it one"

    def check_chroma_of(self, model: SecondStage) -> None:
        """Refuse the chroma of another note map than that of what is stored.

        Raises
        ------
        CollectionMismatch
        """
        if self.chroma_id and model.chroma_id and self.chroma_id != model.chroma_id:
            raise CollectionMismatch(self.why_no_second_stage(model))

    def count_chroma(self) -> int:
        """The number of tracks that have chroma."""
        return self.count() - self.count(NO_CHROMA) if self.has_chroma else 0  # Milvus Lite is slow to count many

    def stored_chroma(self, track_ids: Sequence[str]) -> dict[str, StoredChroma]:
        """Embedding, chroma and statistics of whole tracks, by track_id; those without chroma are not there."""
        found: dict[str, StoredChroma] = {}
        if not self.has_chroma:
            return found
        for entity in self._read(track_ids, "track_id", ["id", "track_id", *FEATURES], HAS_CHROMA):
            features = read_features(entity)
            found[entity["track_id"]] = StoredChroma(
                entity["id"], features.embedding, features.chroma, features.statistics
            )
        return found

    def features_of(self, ids: Sequence[str]) -> dict[str, Features]:
        """The features of rows by primary key, as they are at this moment."""
        names = [name for name in FEATURES if name in self.fields]
        return {entity["id"]: read_features(entity) for entity in self._read(ids, "id", ["id", *names])}

    def without_chroma(self, track_ids: Sequence[str]) -> set[str]:
        """The ids of the rows of these whole tracks that have no chroma."""
        if not self.has_chroma:
            return set()
        return {entity["id"] for entity in self._read(track_ids, "track_id", ["id"], LACKS_CHROMA, 4 * ROWS_PER_READ)}

    def note_full_cohort(self) -> None:
        """Remember that all statistics are of a full cohort and of this alignment.

        A user who may only write rows does without.
        """
        with suppress(CollectionError):
            set_property(self.client, self.name, FULL_COHORT, str(ALIGNMENT))
        self.has_full_cohort = True

    def with_old_statistics(self, n: float) -> list[str]:
        """The ids of the rows whose statistics are of a cohort of less than `n` tracks or of another alignment."""
        # Milvus does not say how a filter takes a key that is missing, but it never equals anything.
        current = f'{HAS_CHROMA} and statistics["n"] >= {n} and statistics["alignment"] == {ALIGNMENT}'
        every, kept = (
            {entity["id"] for entity in self._query(filter, ["id"], consistency_level="Strong")}
            for filter in (HAS_CHROMA, current)
        )
        return sorted(every - kept)

    def cohort(self) -> list[CohortTrack]:
        """The `SIZE` whole tracks with chroma that have the smallest ids; what is damaged is warned of and left out."""
        n_rows = self.count() if self.has_chroma else 0
        share = 2 * SIZE / max(1, n_rows)  # of all ids, which are hashes: of about twice as many rows as are needed
        ids: list[str] = []
        while n_rows and len(ids) < SIZE:
            edge = f'id < "{int(share * 16**_KEY_DIGITS):0{_KEY_DIGITS}x}"' if share < 1 else ""
            found = self._query(and_filter(HAS_CHROMA, edge), ["id", "track_id"], consistency_level="Strong")
            track_of = {entity["id"]: entity["track_id"] for entity in found}
            ids = sorted(track_of)[:SIZE]
            if share >= 1:
                break
            share *= 4
        known = self.features_of(ids)
        return cohort_tracks(((id, track_of[id], known[id]) for id in ids if id in known), self.chroma_channels)

    def _read(
        self, keys: Sequence[str], of: str, output_fields: list[str], filter: str = "", at_once: int = ROWS_PER_READ
    ) -> list[dict[str, Any]]:
        """The rows whose field `of` is one of `keys`, as they are at this moment."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(keys), at_once):
            some = and_filter(filter, f"{of} in {quote(keys[start : start + at_once])}")
            found += self._query(some, output_fields, consistency_level="Strong")
        return found
