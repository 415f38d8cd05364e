"""The options that requests take and the objects that answers are; the OpenAPI document is made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..milvus.search import Match
from ..second_stage.answer import MIN_PROBABILITY, Question
from ..second_stage.explain import Stretch, probability_in_words, stretch_in_words

MOST = 1_000  # matches, and candidates that are aligned, which take about a millisecond each
LONGEST_FILTER = 10_000  # characters
LONGEST_TEXT = 1_000  # characters of a name or a track_id
LONGEST_CHROMA = 65_535  # characters, as a collection holds it


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
    features: Annotated[
        bool,
        Field(description="Give its chroma, for `/v1/alignment`, and the SHA-256 of its file, for `/v1/labels`, too."),
    ] = False
    filter: Annotated[
        str, Field(max_length=LONGEST_FILTER, description='In Milvus\' language, as `artist == "Trad."`.')
    ] = ""

    def question(self) -> Question:
        return Question(self.top_k, self.group_by, self.filter, self.rerank, self.min_probability, self.distinct)


class Pair(BaseModel):
    """A recording, as a query has told of it, and a track that it is to be aligned with."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(max_length=LONGEST_TEXT, description="The name of the recording.")]
    duration_s: Annotated[float, Field(gt=0, le=24 * 3600, allow_inf_nan=False)]
    chroma: Annotated[str, Field(max_length=LONGEST_CHROMA, description="As the answer to a query has it.")]
    track_id: Annotated[str, Field(max_length=LONGEST_TEXT)]
    similarity: Annotated[float | None, Field(ge=-1.01, le=1.01, description="Of the match, as the others.")] = None
    score: Annotated[float | None, Field(allow_inf_nan=False)] = None
    probability: Annotated[float | None, Field(ge=0, le=1)] = None


class Judgement(BaseModel):
    """The word of a person on a recording and a track."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(max_length=LONGEST_TEXT, description="The name of the recording.")]
    content_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="As the answer to a query has it.")]
    track_id: Annotated[str, Field(max_length=LONGEST_TEXT)]
    same_work: Annotated[bool, Field(strict=True)]
    probability: Annotated[float | None, Field(ge=0, le=1, description="Of the match.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMatch(Match):
    """A match as ``match.schema.json`` has it, and in words."""

    query: str  # as the sender calls the recording
    verdict: str  # a sentence: one work or two; "" where nothing was judged
    evidence: str  # a sentence: where the same music runs in both; "" where nothing was aligned


@dataclass(frozen=True, slots=True)
class Heard:
    """Facts of the recording that both answers have."""

    query: str  # its name
    duration_s: float
    warning: str  # of damaged audio; "" where there is none


@dataclass(frozen=True, slots=True)
class QueryAnswer(Heard):
    content_hash: str | None  # SHA-256 of the file, hexadecimal; like the next, if features were asked for
    chroma: str | None  # of the whole, where there is a second stage
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
class AlignmentAnswer:
    """The drawing of a pair, for a page with ``alignment.mjs`` and ``alignment.css`` of this service."""

    words: str  # where the same music runs in both
    verdict: str
    facts: list[tuple[str, str]]  # each with its name before it
    drawings: str  # HTML without names of recordings
    data: dict[str, Any]  # for the script


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The facts of this service that a page or a program needs before it asks."""

    collection: str  # the name by which queries ask
    model_id: str
    audio: bool  # whether it gives out the audio of tracks
    labels: bool  # whether it takes judgements
    maximum_bytes: int  # of a file
    maximum_s: float  # of a recording


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
    return FoundMatch(**asdict(match), query=query, verdict=_verdict(match), evidence=_evidence(match))


def _verdict(match: Match) -> str:
    return "" if match.probability is None else probability_in_words(match.probability)


def _evidence(match: Match) -> str:
    if match.transposition is None or match.tempo_ratio is None:
        return ""
    assert match.query_start_s is not None and match.query_end_s is not None
    times_s = match.query_start_s, match.query_end_s, match.start_s, match.end_s
    return stretch_in_words(Stretch(*times_s, match.transposition, match.tempo_ratio))
