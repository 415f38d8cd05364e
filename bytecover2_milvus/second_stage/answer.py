"""The answer of a catalogue to a query: what the first stage finds, judged by the second where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

from ..frame import to_dataframe
from .matches_html import matches_html
from .rerank import Reranker, candidates_for, covers_among, why_no_verdict

if TYPE_CHECKING:
    import pandas as pd

    from ..embedding.embedder import Embedder
    from ..embedding.query import Query
    from ..milvus.collection import TrackCollection
    from ..milvus.search import Match

MIN_PROBABILITY = 0.75  # of being a cover, from which a match is shown


@dataclass(frozen=True, slots=True)
class Question:
    """The options of a query."""

    limit: int = 10
    group_by: str = "track"  # or "work"
    filter: str = ""  # in Milvus' language
    rerank: int | None = None  # of the closest, that are aligned: None for as many as `candidates_for` says, 0 for none
    min_probability: float = MIN_PROBABILITY
    distinct: bool = False  # of one recording in several encodings, only one
    exclude: tuple[str, ...] = ()  # track_ids to leave out


@dataclass(frozen=True, slots=True)
class Answer:
    """The matches of a query, and what is to be said of them."""

    matches: Sequence[Match]  # the best first
    judged: bool = False  # by the second stage: what is improbable is left out
    nearest: Match | None = None  # of all that was judged, improbable or not
    note: str = ""  # why this query could not be judged where others can

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each match, as `frame.to_dataframe` makes it."""
        from ..milvus.search import Match

        return to_dataframe(self.matches, (entry.name for entry in fields(Match)))

    def _repr_html_(self) -> str:
        """The matches with their verdicts and evidence, for notebooks; `pages.listening.listen` adds players."""
        return matches_html(self.matches, self.nearest, self.note)


class Catalogue:
    """A collection and the two stages that answer from it; threads may share it.

    Parameters
    ----------
    collection : TrackCollection
    embedder : Embedder
        Of the model whose embeddings the collection holds.
    """

    def __init__(self, collection: TrackCollection, embedder: Embedder) -> None:
        self.collection = collection
        self._embedder = embedder
        # Why there is no second stage, "" where there is one.
        self.lack = why_no_verdict(collection, embedder, embedder.verdict)

    @cached_property
    def second_stage(self) -> Reranker | None:
        """The second stage with its cohort, which is read when it is first asked for; None where there is none."""
        verdict = self._embedder.verdict
        return None if self.lack or verdict is None else Reranker(self.collection, verdict, self._embedder.frame_s)

    def answer(self, asked: Query, question: Question) -> Answer:
        """The matches of a recording that `embed_query` has embedded.

        Raises
        ------
        CollectionError, ChromaError
            As `TrackCollection.search` and `Reranker.rerank`.
        """
        second = None if question.rerank == 0 else self.second_stage
        heard = asked.heard if second else None
        aligned = 0 if heard is None else candidates_for(heard) if question.rerank is None else question.rerank
        wanted = max(question.limit, aligned)
        (found,) = self.collection.search(
            [asked], wanted, group_by=question.group_by, filter=question.filter, exclude=question.exclude
        )
        if second is None or heard is None:
            return Answer(found[: question.limit])
        if short := second.why_not(heard):
            return Answer(found[: question.limit], note=short)
        closest = second.rerank(heard, found, question.limit, question.min_probability, question.distinct)
        covers = covers_among(closest, question.min_probability)[: question.limit]
        return Answer(covers, judged=True, nearest=closest[0] if closest else None)
