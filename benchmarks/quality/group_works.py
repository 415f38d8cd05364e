"""Precision and recall of the groups that `groups` finds: held-out works among tracks that belong to no group.

One command, JSON lines on stdout::

    python -m benchmarks.quality.group_works --scores SCORES

Protocol
--------
Of every other work of `held_out` all tracks are stored, of the others one alone, in one collection of a Milvus Lite, so
that a third of the tracks belongs to no group. `find_groups` groups them with several numbers of candidates and several
least probabilities; `groups` does the same.

Metrics
-------
precision
    Of all pairs of tracks in one group, the share that is of one work.
recall
    Of all pairs of tracks of one work, the share that is in one group.
purity
    Of all tracks in groups, the share that is of the work that most of its group is of.
whole
    How many works of several tracks are a group by themselves, nothing missing and nothing added.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.held_out import SETS, clean_tracks, works_of
from benchmarks.quality.jingles import Recording, store
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.groups.find import find_groups
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.songs import version
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont

CANDIDATES = (5, 10, 20, 40)
PROBABILITIES = (0.25, 0.5, 0.75, 0.9, 0.95)


def judged(groups: Iterable[Sequence[str]], work_of: Mapping[str, str]) -> dict[str, float]:
    """Precision, recall and purity of groups of tracks, by the works of all tracks."""
    together = right = tracks = most = whole = 0
    sizes = Counter(work_of.values())
    for members in groups:
        counts = Counter(work_of[track] for track in members)
        together += len(members) * (len(members) - 1) // 2
        right += sum(count * (count - 1) // 2 for count in counts.values())
        tracks += len(members)
        most += max(counts.values())
        whole += len(counts) == 1 and len(members) == sizes[next(iter(counts))]
    of_one_work = sum(size * (size - 1) // 2 for size in sizes.values())
    return {
        "grouped": tracks,
        "precision": right / together if together else 1.0,
        "recall": right / of_one_work,
        "purity": most / tracks if tracks else 1.0,
        "whole": whole,
        "works": sum(size > 1 for size in sizes.values()),
    }


@click.command()
@click.option("--scores", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--bundle", type=click.Path(file_okay=False, path_type=Path), help="By default the one that ships.")
@click.option("--sets", "names", multiple=True, type=click.Choice(SETS), default=[s for s in SETS if s != "recordings"])
@click.option("--works", "n_works", type=click.IntRange(2), default=40, show_default=True, help="Of each set, at most.")
@click.option("--tracks", "n_tracks", type=click.IntRange(2), default=3, show_default=True, help="Of every other work.")
@click.option("--soundfont", type=click.Path(path_type=Path), default=SOUNDFONTS / "TimGM6mb.sf2", show_default=True)
@click.option(
    "--cache", "cache_folder", type=click.Path(path_type=Path), default=Path(".cache/validation"), show_default=True
)
def main(
    scores: Path,
    bundle: Path | None,
    names: tuple[str, ...],
    n_works: int,
    n_tracks: int,
    soundfont: Path,
    cache_folder: Path,
) -> None:
    """Group tracks of known works, and tell how right the groups are."""
    embedder = Embedder(bundle, "cpu")
    if embedder.verdict is None:
        raise click.ClickException(
            f"{bundle or 'the bundle'}: has no calibration; run benchmarks.quality.calibration first"
        )
    soundfont = find_soundfont(soundfont)
    folder = cache_folder / f"{version.ALL} {soundfont.stem}"
    found = []
    for name in names:
        for number, work in enumerate(works_of(name, scores, n_works, n_tracks)):
            for track_id, waveform in clean_tracks(work, soundfont, folder):
                found.append(Recording(track_id, f"{work.set}/{work.work_id}", waveform))
                if number % 2:
                    break
    work_of = {recording.track_id: recording.work_id for recording in found}
    with tempfile.TemporaryDirectory() as place, connected(str(Path(place) / "milvus.db")) as client:
        collection = TrackCollection.create(client, "works", embedder)
        store(found, embedder, collection)
        for candidates in CANDIDATES:
            for least in PROBABILITIES:
                state = Path(place) / "groups.sqlite"
                with find_groups(
                    collection, embedder.verdict, embedder.frame_s, state, candidates=candidates, min_probability=least
                ) as groups:
                    figures = judged(([track.track_id for track in group.tracks] for group in groups), work_of)
                    click.echo(
                        json.dumps(
                            {"candidates": candidates, "min_probability": least, "tracks": len(found)}
                            | {"pairs": groups.pairs, "groups": groups.n_groups}
                            | figures
                        )
                    )


if __name__ == "__main__":
    main()
