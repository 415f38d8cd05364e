"""The effect of jingles on short queries: excerpts among full tracks and ten pieces of a few seconds.

One command, JSON lines on stdout::

    python -m benchmarks.quality.jingles --scores SCORES --bundle BUNDLE

Protocol
--------
200 clean tracks of the works of `held_out`, three of each work, and ten jingles of 2 to 10 seconds, the beginnings of
tracks of other works, are stored in a Milvus Lite: whole, and in another collection also in segments of 30 seconds, one
every 15 seconds. A hundred of the tracks ask with excerpts of 10, 20 and 30 seconds, once with their own recording
among the candidates and once without, where the covers are to be found. Counted is how often the first match is right,
is a jingle, or is a jingle that is shown as a cover, by the vector alone and after the second stage.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from benchmarks.held_out import HeldOut, Recording, held_out_options
from benchmarks.quality.stored import bundle_option, calibrated_embedder, store
from benchmarks.quality.validation import excerpt
from bytecover2_milvus.audio.segments import Segments
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import embed_query
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.second_stage.rerank import CANDIDATES, Reranker

TRACKS, PER_WORK, ASKING = 200, 3, 100
JINGLES_S = np.linspace(2, 10, 10)
EXCERPTS_S = (10.0, 20.0, 30.0)
CUTS = {"whole tracks": Segments(), "segments of 30 s": Segments(30.0, 15.0)}
JINGLE = "jingle"


def recordings(held_out: HeldOut) -> Iterator[Recording]:
    """Tracks, then jingles of other works."""
    n_works = -(-TRACKS // (PER_WORK * len(held_out.names))) + JINGLES_S.size
    held_out = replace(held_out, n_works=n_works, n_tracks=PER_WORK)
    in_turn = [work for turn in zip(*map(held_out.works_of, held_out.names), strict=False) for work in turn]
    n_tracks, durations_s = 0, iter(JINGLES_S.tolist())
    for work in in_turn:
        for track in held_out.recordings(work):
            if n_tracks < TRACKS:
                n_tracks += 1
                yield track
            elif (duration_s := next(durations_s, None)) is not None:
                sounding = int(np.argmax(np.abs(track.waveform) > 0.01))
                cut = track.waveform[sounding : sounding + round(duration_s * SAMPLE_RATE)]
                yield Recording(f"{JINGLE} of {duration_s:.1f} s", JINGLE, cut)
                break
            else:
                return


def first_matches(
    found: Sequence[Recording], embedder: Embedder, collection: TrackCollection, duration_s: float
) -> dict[tuple[str, str], dict[str, int]]:
    """Numbers of first matches that are right and that are jingles, by what is among the candidates and by stage."""
    assert embedder.verdict is not None
    second = Reranker(collection, embedder.verdict, embedder.frame_s)
    chosen = np.random.default_rng(0).permutation(TRACKS)[:ASKING]
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for i in chosen.tolist():
        asking = found[i]
        query = embed_query(excerpt(duration_s, asking.waveform, np.random.default_rng(i)), embedder)
        assert query.heard is not None
        for among, exclude in (("its recording and covers", []), ("its covers", [asking.track_id])):
            (matches,) = collection.search([query], CANDIDATES, exclude=exclude)
            judged = second.rerank(query.heard, matches, 0)
            for stage, ranked in (("vector", matches), ("both stages", judged)):
                count = counts.setdefault((among, stage), {"right": 0, "jingle": 0, "jingle_shown": 0})
                count["right"] += ranked[0].work_id == asking.work_id
                count["jingle"] += ranked[0].work_id == JINGLE
                shown = ranked[0].score is not None and ranked[0].score >= 0
                count["jingle_shown"] += ranked[0].work_id == JINGLE and shown
    return counts


@click.command()
@held_out_options(works=None, tracks=None)
@bundle_option
def main(held_out: HeldOut, bundle: Path | None) -> None:
    """Ask with excerpts among full tracks and jingles."""
    embedder = calibrated_embedder(bundle)
    found = list(recordings(held_out))
    click.echo(f"{len(found)} recordings", err=True)
    with tempfile.TemporaryDirectory() as place, connected(str(Path(place) / "milvus.db")) as client:
        for cut, segments in CUTS.items():
            collection = TrackCollection.create(client, f"jingles_{len(segments.spans(10**7))}", embedder)
            collection.set_segmentation(segments)
            store(found, embedder, collection)
            for duration_s in EXCERPTS_S:
                for (among, stage), counts in first_matches(found, embedder, collection, duration_s).items():
                    figures = {"excerpt_s": duration_s, "stored": cut, "among": among, "stage": stage}
                    click.echo(json.dumps({**figures, "queries": ASKING, **counts}))
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
