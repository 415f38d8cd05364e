"""The options that requests take and the objects that answers are; the OpenAPI document is made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..milvus.search import Match
from ..second_stage.answer import MIN_PROBABILITY, Question

MOST = 1_000  # matches, and candidates that are aligned, which take about a millisecond each
LONGEST_FILTER = 10_000  # characters


class Options(BaseModel):
    """The options of a request with a recording; one that is not known is refused."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[str | None, Field(description="A file below the folder of the service, instead of an upload.")] = (
        None
    )


class QueryOptions(Options):
    """The options of a query, as those of the command `query`."""

    top_k: Annotated[int, Field(ge=1, le=MOST, description="Matches.")] = 10
    group_by: Annotated[
        Literal["track", "work"], Field(description="Whether each track counts, or only the closest of each work.")
    ] = "track"
    rerank: Annotated[
        int | None,
        Field(
            ge=0,
            le=MOST,
            description="How many of the closest are aligned and judged by the second stage; 0 for none. The default is"
            " 100, and up to 400 for a short query.",
        ),
    ] = None
    min_probability: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Of being a cover, from which a match is given, where there is a second stage. 0 gives the"
            " nearest, covers or not.",
        ),
    ] = MIN_PROBABILITY
    distinct: Annotated[bool, Field(description="Of tracks that are one recording in several encodings, give one.")] = (
        False
    )
    filter: Annotated[
        str, Field(max_length=LONGEST_FILTER, description='In Milvus\' language, as `artist == "Trad."`.')
    ] = ""

    def question(self) -> Question:
        return Question(self.top_k, self.group_by, self.filter, self.rerank, self.min_probability, self.distinct)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMatch(Match):
    """A match as ``match.schema.json`` has it."""

    query: str  # as the sender calls the recording


@dataclass(frozen=True, slots=True)
class Heard:
    """Facts of the recording that both answers have."""

    query: str  # its name
    duration_s: float
    warning: str  # of damaged audio; "" where there is none


@dataclass(frozen=True, slots=True)
class QueryAnswer(Heard):
    matches: list[FoundMatch]
    judged: bool  # by the second stage: no match then means that no cover was found
    nearest: FoundMatch | None  # of all that was judged, cover or not
    note: str  # why nothing was judged; "" where it was
    collection: str  # that was asked, by its own name
    model_id: str


@dataclass(frozen=True, slots=True)
class EmbedAnswer(Heard):
    embedding: list[float]  # of unit norm
    model_id: str


@dataclass(frozen=True, slots=True)
class Track:
    track_id: str
    work_id: str  # "" where the work is not known
    title: str
    artist: str
    path: str  # where its file was when it was ingested
    duration_s: float
    content_hash: str  # SHA-256 of the file, hexadecimal
    segments: int  # that are stored beside the whole
    metadata: dict[str, Any]
    warning: str
    audio: str | None  # where its audio is; null where the operator does not give it out


@dataclass(frozen=True, slots=True)
class Collections:
    collections: list[dict[str, Any]]  # each as ``collection.schema.json`` has it
    asked: str  # the name by which queries ask


@dataclass(frozen=True, slots=True)
class Readiness:
    ready: bool
    reason: str  # why not; "" if ready


@dataclass(frozen=True, slots=True)
class Problem:
    error: str  # one line


def found(query: str, match: Match) -> FoundMatch:
    return FoundMatch(**asdict(match), query=query)
