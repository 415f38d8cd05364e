"""The effect of a promotion on others: queries and an ingest in processes of their own, while the alias moves.

Half of a folder is ingested with the old bundle. Then, all at once: ``promote`` to the new bundle; an ingest of the
other half with the old bundle; a reader that opens the alias for every query, with the old bundle and where that is
refused with the new; and a reader that opened the collection before and keeps it. The query is a track of the
collection, so the right answer is known: the track itself, at similarity 1. Rows of another model do not give that.

wrong
    Answers that were not the track itself. 0: no query saw a mixture.
failed
    Queries that got an error from both bundles. 0: there was no gap.
lost
    Tracks that the ingest had reported as stored and that are not in the new collection.

Needs a server: Milvus Lite lets one process in. Prints one JSON object. Run from the repository::

    python -m benchmarks.speed.promotion MUSIC --to BUNDLE --uri http://localhost:19530
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import click

from bytecover2_milvus.audio.load import find_audio, load_audio
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import BytecoverError, CollectionMismatch
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.ingest.promote import promote
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus.alias import drop_collection
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connect
from bytecover2_milvus.milvus.search import Match

RIGHT = 0.999  # similarity of a track to itself, at least


@dataclass(frozen=True)
class Scene:
    """All that the processes have in common."""

    uri: str
    alias: str
    old: Path | None  # bundles; None is the one that ships
    new: Path


def read(scene: Scene, query: Path, done: Event, results: Queue) -> None:
    """Ask until `done`: by the alias, and of the collection that it stood for in the beginning."""
    client, waveform = connect(scene.uri), load_audio(query)
    models = [Embedder(scene.old), Embedder(scene.new)]
    asked = [(model, model.embed(waveform)) for model in models]
    kept = TrackCollection.open(client, scene.alias, models[0].model_id)
    counts = {"queries_old": 0, "queries_new": 0, "queries_kept": 0, "wrong": 0, "failed": 0}
    longest_s = 0.0
    results.put("ready")
    while not done.is_set():
        started = time.perf_counter()
        for (model, embedding), name in zip(asked, ("queries_old", "queries_new"), strict=True):
            try:
                found = TrackCollection.open(client, scene.alias, model.model_id).search(embedding, limit=1)[0]
            except CollectionMismatch:
                continue
            except BytecoverError:
                counts["failed"] += 1
                break
            counts[name] += 1
            counts["wrong"] += not _is_right(found, query)
            longest_s = max(longest_s, time.perf_counter() - started)
            break
        else:
            counts["failed"] += 1
        found = kept.search(asked[0][1], limit=1)[0]
        counts["queries_kept"] += 1
        counts["wrong"] += not _is_right(found, query)
    results.put(counts | {"longest_ms": 1e3 * longest_s})


def _is_right(found: list[Match], query: Path) -> bool:
    return bool(found) and found[0].path == os.path.abspath(query) and found[0].similarity >= RIGHT


def store(scene: Scene, files: list[Path], results: Queue) -> None:
    """Ingest with the old bundle, until the collection is another model's."""
    embedder, told = Embedder(scene.old), []
    collection = TrackCollection.open(connect(scene.uri), scene.alias, embedder.model_id)
    refused = ""
    try:
        for record in ingest(tracks_in(files), embedder, collection, workers=0, batch_size=4):
            told.append(record.track_id)
    except CollectionMismatch as error:
        refused = str(error)
    results.put((told, refused))


@click.command()
@click.argument("music", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--from", "old", type=click.Path(path_type=Path), help="Old bundle; the default is the one that ships.")
@click.option("--to", "new", type=click.Path(path_type=Path), required=True, help="New bundle.")
@click.option("--uri", required=True, help="Milvus server.")
def main(music: Path, old: Path | None, new: Path, uri: str) -> None:
    """Promote a collection while others query it and store into it."""
    scene = Scene(uri, f"benchmark_promotion_{os.getpid()}", old, new)
    files = find_audio([music])
    before, meanwhile = files[::2], files[1::2]
    context = multiprocessing.get_context("spawn")
    done, readings, storings = context.Event(), context.Queue(), context.Queue()
    client, made = connect(uri), []
    try:
        embedder = Embedder(old)
        collection = TrackCollection.open_or_create(client, scene.alias, embedder)
        made.append(collection.name)
        for _ in ingest(tracks_in(before), embedder, collection, workers=0):
            pass
        reader = context.Process(target=read, args=(scene, before[0], done, readings), daemon=True)
        storer = context.Process(target=store, args=(scene, meanwhile, storings), daemon=True)
        reader.start()
        readings.get(timeout=300)
        storer.start()
        started = time.perf_counter()
        promotion = promote(client, scene.alias, Embedder(new), workers=0)
        promotion_s = time.perf_counter() - started
        made.append(promotion.to_collection)
        told, refused = storings.get(timeout=300)
        time.sleep(1.0)  # queries of the new model
        done.set()
        counts = readings.get(timeout=300)
        stored = TrackCollection.open(client, promotion.to_collection).rows_per_track(told)
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error
    finally:
        done.set()
        for name in made:
            drop_collection(client, name)
    result = {"tracks": promotion.tracks, "promotion_s": promotion_s} | counts
    result |= {"acknowledged": len(told), "lost": len(told) - len(stored), "ingest_refused": refused}
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
