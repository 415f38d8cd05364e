"""A recording and a track: their alignment, drawn from the chroma that a client has, and what people say of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from ..alignment.chroma import PITCH_CLASSES, decode, encode, to_levels
from ..errors import BytecoverError, ChromaError
from ..labels import Label
from ..pages.alignment import data_of, drawings, facts_of
from ..second_stage.explain import Recording, explain_pair, in_words, verdict_in_words
from . import forms
from .refusal import Refused, refusal_of
from .upload import shown

if TYPE_CHECKING:
    from ..embedding.embedder import Heard
    from ..milvus.schema import Row
    from .service import Service


def chroma_of(heard: Heard | None) -> str | None:
    """The chroma of a recording as a text that a client keeps for `align`; None without a second stage."""
    return None if heard is None or heard.chroma is None else encode(to_levels(np.asarray(heard.chroma)))


def align(service: Service, pair: forms.Pair) -> forms.AlignmentAnswer:
    """The alignment of a pair, drawn.

    Raises
    ------
    Refused
        404 without such a track, 409 without its chroma, 422 if the recording cannot be aligned with it.
    """
    hears, collection = service.embedder.contract.chroma, service.catalogue.now().collection
    if hears is None:
        raise Refused(409, "the model of this service has no second stage, so there is nothing to draw")
    row = rows_of(service, pair.track_id)[0]
    name, channels = shown(pair.query), PITCH_CLASSES * len(hears.groups)
    try:
        known = collection.stored_chroma([pair.track_id]).get(pair.track_id)
        if known is None:
            raise Refused(409, f"{shown(pair.track_id)}: no chroma is stored of it, so there is nothing to draw")
        stored = decode(known.chroma, channels, pair.track_id)
    except BytecoverError as error:
        raise refusal_of(error) from error
    try:
        query = Recording(name, pair.duration_s, decode(pair.chroma, channels, name))
        track = Recording(shown(pair.track_id), row.duration_s, stored)
        explanation = explain_pair(
            query,
            track,
            hears.groups,
            service.embedder.frame_s,
            similarity=pair.similarity,
            score=pair.score,
            probability=pair.probability,
        )
    except ChromaError as error:
        raise Refused(422, str(error)) from error
    return forms.AlignmentAnswer(
        words=in_words(explanation),
        verdict=verdict_in_words(explanation),
        facts=facts_of(explanation),
        drawings=drawings(explanation),
        data=data_of(explanation),
    )


def keep(service: Service, judgement: forms.Judgement) -> Label:
    """The label of a judgement, which is in the labels file when this returns.

    Raises
    ------
    Refused
        404 without such a track.
    OutputError
        If the file cannot be written.
    """
    assert service.labels is not None
    row = rows_of(service, judgement.track_id)[0]
    label = Label(
        query=shown(judgement.query),
        content_hash=judgement.content_hash,
        track_id=row.track_id,
        path=row.path,
        work_id=row.work_id,
        same_work=judgement.same_work,
        probability=judgement.probability,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    service.labels.append(label)
    return label


def rows_of(service: Service, track_id: str) -> list[Row]:
    """The rows of a track, the whole first.

    Raises
    ------
    Refused
        404 if there is none.
    """
    rows = service.catalogue.now().collection.rows_of([track_id])
    if not rows:
        raise Refused(404, f"{shown(track_id)}: no track of that id")
    return sorted(rows, key=lambda row: not row.is_whole)
