"""A drawn catalogue of tracks, in Faiss and in Milvus: what the benchmarks of search look for things in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.neighbourhood import Embeddings, Neighbourhood, compare
from bytecover2_milvus.embedding.bundle import default_bundle, open_bundle
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.milvus.calls import call_with_retry
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect
from bytecover2_milvus.milvus.index import LOAD_TIMEOUT_S, await_index
from bytecover2_milvus.milvus.schema import BODY, Features, Row
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render

if TYPE_CHECKING:
    import faiss
    from pymilvus import MilvusClient
    from pymilvus.milvus_client.index import IndexParams

LIMIT = 10  # rows of a search
NAME = "retrieval"
HNSW: dict[str, int] = BODY["indexParams"][0]["params"]
SONG_S = 60.0  # of each song, rendered to fit the neighbourhood
ARRANGEMENTS = 4
FILL_ROWS = 10_000

Search = Callable[[Embeddings], NDArray[np.int64]]  # query (D,) -> the rows found, closest first


@dataclass(frozen=True)
class Catalogue:
    """The vectors that are searched, the queries, and the right answers."""

    vectors: Embeddings  # (n_tracks, D)
    queries: Embeddings  # (n_queries, D)
    exact: NDArray[np.int64]  # (n_queries, LIMIT), closest first


def songs_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name the songs that the neighbourhood is fitted to."""
    command = click.option(
        "--embeddings",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A .npy that keeps the songs' embeddings; made if it is not there.",
    )(command)
    return click.option(
        "--songs", type=click.IntRange(3), default=200, show_default=True, help="To fit the neighbourhood to."
    )(command)


def embed_songs(songs: int) -> Embeddings:
    """The embeddings of `ARRANGEMENTS` arrangements of each of so many composed songs."""
    embedder = Embedder(device="cpu", threads=1)
    pairs = [(song, seed) for song in map(compose, range(songs)) for seed in range(ARRANGEMENTS)]
    return np.stack([embedder.embed(render(arrange(song, seed), SONG_S)) for song, seed in pairs])


def fit_neighbourhood(songs: int, cache: Path | None) -> tuple[Neighbourhood, dict[str, dict[str, float]]]:
    """Of `embed_songs`, which are kept in the file `cache`; and how vectors drawn from it compare with them."""
    if cache is not None and cache.exists():
        embeddings = np.load(cache)
    else:
        embeddings = embed_songs(songs)
        if cache is not None:
            np.save(cache, embeddings)
    work_ids = np.arange(len(embeddings)) // ARRANGEMENTS
    return Neighbourhood.fit(embeddings, work_ids), compare(embeddings, work_ids, np.random.default_rng(0))


def draw_catalogue(like: Neighbourhood, tracks: int, queries: int, dim: int, seed: int) -> Catalogue:
    drawn = like.draw(tracks + queries, np.random.default_rng(seed), copies=dim // len(like.mean))
    return Catalogue(drawn[queries:], drawn[:queries], closest(drawn[queries:], drawn[:queries]))


def closest(vectors: Embeddings, queries: Embeddings, passes: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The `LIMIT` rows of highest similarity (n_queries, LIMIT), closest first, among those that pass."""
    found = np.empty((len(queries), LIMIT), dtype=np.int64)
    for start in range(0, len(queries), 32):  # 128 MB of similarities to a million rows
        similarity = queries[start : start + 32] @ vectors.T
        if passes is not None:
            similarity[:, ~passes] = -np.inf
        best = np.argpartition(-similarity, LIMIT - 1, axis=1)[:, :LIMIT]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1)
        found[start : start + 32] = np.take_along_axis(best, order, axis=1)
    return found


def flat_index(vectors: Embeddings) -> faiss.Index:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def hnsw_index(vectors: Embeddings) -> faiss.Index:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW["M"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW["efConstruction"]
    index.add(vectors)
    return index


def faiss_search(index: faiss.Index, ef: int | None = None, limit: int = LIMIT) -> Search:
    import faiss

    params = None if ef is None else faiss.SearchParametersHNSW(efSearch=ef)
    return lambda query: index.search(query[None], limit, params=params)[1][0]


@dataclass(frozen=True)
class Shaped:
    """The bundle's model as it would be with other embeddings."""

    model_id: str
    dim: int
    contract_version: int
    chroma_id: str = ""
    chroma_channels: int = 0


@contextmanager
def connected(uri: str) -> Iterator[MilvusClient]:
    client = connect(uri)
    try:
        yield client
    finally:
        close(client)


def fill(client: MilvusClient, vectors: Embeddings, index_type: str, params: dict[str, int]) -> TrackCollection:
    """A collection of ours that holds `vectors`, with rows as `ingest` stores them; settled or not.

    They are inserted, ten thousand at a time: to upsert, as `ingest` does, looks for rows to replace, and none are.
    ``size`` is the row's number in a random order, by which a filter lets any share of the rows pass.
    """
    model = open_bundle(default_bundle()).contract
    collection = TrackCollection.create(client, NAME, Shaped(model.model_id, vectors.shape[1], model.contract_version))
    if collection.index_type != index_type:
        call_with_retry(client.release_collection, collection_name=NAME)
        call_with_retry(client.drop_index, collection_name=NAME, index_name="embedding")
        wanted = index_of(client, index_type, params)
        call_with_retry(client.create_index, collection_name=NAME, index_params=wanted, timeout_s=LOAD_TIMEOUT_S)
        collection = TrackCollection.open(client, NAME)
    sizes = shuffled(len(vectors))
    for start in range(0, len(vectors), FILL_ROWS):
        numbers = range(start, min(start + FILL_ROWS, len(vectors)))
        rows = [made_row(number, int(sizes[number])).entity(Features(vectors[number])) for number in numbers]
        call_with_retry(client.insert, collection_name=NAME, data=rows, timeout_s=LOAD_TIMEOUT_S)
    return collection


def made_row(number: int, size: int) -> Row:
    """A row whose key holds its number; keys are spread evenly, as hashes are."""
    spread = number * 0x9E3779B97F4A7C15 % 2**64
    return Row(
        track_id=str(number),
        content_hash=f"{spread:016x}{number:048x}",
        duration_s=240.0,
        start_s=0.0,
        end_s=240.0,
        work_id=f"work-{number // 3}",
        title=f"Song number {number // 3}",
        artist=f"Artist {number % 1_000}",
        path=f"/music/artist-{number % 1_000}/{number}.flac",
        size=size,
        mtime_ns=1_700_000_000_000_000_000,
        metadata={"year": 1900 + number % 120},
    )


def shuffled(n_tracks: int) -> NDArray[np.int64]:
    return np.random.default_rng(n_tracks).permutation(n_tracks)


def index_of(client: MilvusClient, index_type: str, params: dict[str, int]) -> IndexParams:
    wanted = client.prepare_index_params()
    wanted.add_index("embedding", index_type, "embedding", metric_type="COSINE", params=params)
    return wanted


def settle(collection: TrackCollection) -> None:
    """Wait until every row is in the index and what is loaded is indexed."""
    client = collection.client
    collection.flush()
    await_index(client, NAME)
    call_with_retry(client.release_collection, collection_name=NAME)
    TrackCollection.open(client, NAME)  # loads it, and knows what to do where Milvus Lite cannot
