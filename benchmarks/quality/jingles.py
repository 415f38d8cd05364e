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

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.held_out import SETS, Waveform, clean_tracks, works_of
from benchmarks.quality.validation import excerpt
from bytecover2_milvus.alignment.chroma import encode, to_levels
from bytecover2_milvus.audio.segments import Segments, times_s
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import embed_query
from bytecover2_milvus.milvus.cohort import Cohort, CohortTrack
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.milvus.schema import Row
from bytecover2_milvus.second_stage.rerank import CANDIDATES, Reranker
from bytecover2_milvus.songs import version
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont

TRACKS, PER_WORK, ASKING = 200, 3, 100
JINGLES_S = np.linspace(2, 10, 10)
EXCERPTS_S = (10.0, 20.0, 30.0)
CUTS = {"whole tracks": Segments(), "segments of 30 s": Segments(30.0, 15.0)}
JINGLE = "jingle"


@dataclass(frozen=True, eq=False)
class Recording:
    """A track of the catalogue."""

    track_id: str
    work_id: str
    waveform: Waveform


def recordings(names: Sequence[str], scores: Path, soundfont: Path, folder: Path) -> Iterator[Recording]:
    """Tracks, then jingles of other works."""
    n_works = -(-TRACKS // (PER_WORK * len(names))) + JINGLES_S.size
    works = [works_of(name, scores, n_works, PER_WORK) for name in names]
    in_turn = [work for turn in zip(*works, strict=False) for work in turn]
    n_tracks, durations_s = 0, iter(JINGLES_S.tolist())
    for work in in_turn:
        for track_id, waveform in clean_tracks(work, soundfont, folder):
            if n_tracks < TRACKS:
                n_tracks += 1
                yield Recording(track_id, f"{work.set}/{work.work_id}", waveform)
            elif (duration_s := next(durations_s, None)) is not None:
                sounding = int(np.argmax(np.abs(waveform) > 0.01))
                cut = waveform[sounding : sounding + round(duration_s * SAMPLE_RATE)]
                yield Recording(f"{JINGLE} of {duration_s:.1f} s", JINGLE, cut)
                break
            else:
                return


def store(found: Sequence[Recording], embedder: Embedder, collection: TrackCollection) -> None:
    """All rows, with the statistics of the cohort that the collection has."""
    rows, heard = [], []
    for recording in found:
        content = hashlib.sha256(recording.track_id.encode()).hexdigest()
        duration_s = len(recording.waveform) / SAMPLE_RATE
        spans = collection.segments.audible_spans(recording.waveform)
        for span in spans:
            start_s, end_s = (0.0, duration_s) if span == spans[0] else times_s(span)
            rows.append(Row(recording.track_id, content, duration_s, start_s, end_s, recording.work_id))
        heard += embedder.hear_batch([recording.waveform[start:stop] for start, stop in spans])
    levels = [to_levels(one.chroma) for one in heard]
    whole = [
        CohortTrack(row.id, row.track_id, one.embedding, own)
        for row, one, own in zip(rows, heard, levels, strict=True)
        if row.is_whole
    ]
    known = dict(zip((track.id for track in whole), Cohort(whole).statistics_in_turn(whole), strict=True))
    chromas = [encode(own) if row.is_whole else "" for row, own in zip(rows, levels, strict=True)]
    collection.upsert(
        rows, np.stack([one.embedding for one in heard]), chromas, [known.get(row.id, {}) for row in rows]
    )


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
@click.option("--scores", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--bundle", type=click.Path(file_okay=False, path_type=Path), help="By default the one that ships.")
@click.option("--sets", "names", multiple=True, type=click.Choice(SETS), default=[s for s in SETS if s != "recordings"])
@click.option("--soundfont", type=click.Path(path_type=Path), default=SOUNDFONTS / "TimGM6mb.sf2", show_default=True)
@click.option(
    "--cache", "cache_folder", type=click.Path(path_type=Path), default=Path(".cache/validation"), show_default=True
)
def main(scores: Path, bundle: Path | None, names: tuple[str, ...], soundfont: Path, cache_folder: Path) -> None:
    """Ask with excerpts among full tracks and jingles."""
    embedder = Embedder(bundle, "cpu")
    if embedder.verdict is None:
        raise click.ClickException(
            f"{bundle or 'the bundle'}: has no calibration; run benchmarks.quality.calibration first"
        )
    soundfont = find_soundfont(soundfont)
    folder = cache_folder / f"{version.ALL} {soundfont.stem}"
    found = list(recordings(names, scores, soundfont, folder))
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
