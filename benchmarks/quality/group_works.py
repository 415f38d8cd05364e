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
from itertools import islice
from pathlib import Path

import click

from benchmarks.held_out import HeldOut, Recording, held_out_options
from benchmarks.quality.stored import bundle_option, calibrated_embedder, store
from bytecover2_milvus.groups.find import find_groups
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected

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
@held_out_options()
@bundle_option
def main(held_out: HeldOut, bundle: Path | None) -> None:
    """Group tracks of known works, and tell how right the groups are."""
    embedder = calibrated_embedder(bundle)
    found: list[Recording] = []
    for name in held_out.names:
        for number, work in enumerate(held_out.works_of(name)):
            found += islice(held_out.recordings(work), 1 if number % 2 else None)
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
