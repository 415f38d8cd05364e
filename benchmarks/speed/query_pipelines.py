"""The parts of a query on one core, ours and those of common libraries, and the clips that they are asked with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import librosa
import numpy as np
import onnxruntime
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from benchmarks.speed.as_trained import PooledCQT, as_trained
from benchmarks.speed.catalogue import (
    connected,
    faiss_search,
)
from benchmarks.speed.rerank import track
from bytecover2_milvus.alignment.chroma import encode
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE, Config, Network
from bytecover2_milvus.embedding.bundle import default_bundle, open_bundle
from bytecover2_milvus.embedding.contract import INPUT, INPUT_CQT, OUTPUT
from bytecover2_milvus.embedding.embedder import Embedder, Heard
from bytecover2_milvus.export.fold import FromCQT, InferenceModel
from bytecover2_milvus.export.graph import export_cqt_onnx, export_onnx
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.schema import Row
from bytecover2_milvus.milvus.search import Match
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.second_stage.rerank import CANDIDATES, Reranker
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint

LIMIT = 5  # tracks found
CLIP_S = 45.0
CLIP_RATE = 44_100  # Hz
TRACK_FRAMES = 520  # of chroma: four minutes


@dataclass(frozen=True)
class Pipeline:
    """The four parts of a query, each taking what the one before gave."""

    load: Callable[[Path], Any]
    cqt: Callable[[Any], Any]
    inference: Callable[[Any], NDArray[np.float32]]  # -> embedding (D,)
    retrieval: Callable[[NDArray[np.float32]], list[str]]  # -> the closest tracks


def network_of(name: str) -> Checkpoint:
    if name == "bundle":
        return load_checkpoint(default_bundle())
    torch.manual_seed(0)
    config = Config(network=Network(feature_dim=int(name.removeprefix("paper-"))))
    return Checkpoint(config, ByteCover2(config.network))


def make_clips(folder: Path, clips: int, suffix: str) -> list[Path]:
    """Composed songs, rendered; a noise floor reaches to where our renderer does not, and left is not right."""
    paths = []
    for number in range(clips):
        rng = np.random.default_rng(number)
        mono = soxr.resample(render(arrange(compose(number), 0), CLIP_S), SAMPLE_RATE, CLIP_RATE)
        mono = np.tile(mono, -(-round(CLIP_S * CLIP_RATE) // len(mono)))[: round(CLIP_S * CLIP_RATE)]
        stereo = np.stack([mono, np.roll(mono, 200)], axis=1) + rng.normal(0, 1e-3, (len(mono), 2))
        paths.append(folder / f"{number}.{suffix}")
        soundfile.write(paths[-1], stereo, CLIP_RATE, format=suffix.upper())
    return paths


def reference(checkpoint: Checkpoint, index: faiss.Index) -> Pipeline:
    front_end, embed = checkpoint.config.front_end, as_trained(checkpoint)

    def cqt(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        magnitude = np.abs(
            librosa.cqt(
                waveform,
                sr=SAMPLE_RATE,
                hop_length=front_end.hop_length,
                fmin=front_end.fmin,
                n_bins=front_end.n_bins,
                bins_per_octave=front_end.bins_per_octave,
            )
        )
        n_blocks = magnitude.shape[1] // embed.pooling
        blocks = magnitude[:, : n_blocks * embed.pooling].reshape(len(magnitude), n_blocks, -1)
        return blocks.mean(axis=2).astype(np.float32)

    @torch.inference_mode()
    def inference(cqt: NDArray[np.float32]) -> NDArray[np.float32]:
        return embed(torch.from_numpy(cqt)[None])[0].numpy()

    search = faiss_search(index, limit=LIMIT)
    return Pipeline(
        lambda path: librosa.load(path, sr=SAMPLE_RATE)[0], cqt, inference, lambda query: list(map(str, search(query)))
    )


def ours(
    checkpoint: Checkpoint,
    whole: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    collection: TrackCollection,
) -> Pipeline:
    """Front end and network as two graphs; as `whole`, all of it inference, where a chroma network is joined."""
    front_end = checkpoint.config.front_end

    def search(embedding: NDArray[np.float32]) -> list[str]:
        return [match.track_id for match in collection.search(embedding, LIMIT)[0]]

    if checkpoint.config.network.joins:
        return Pipeline(load_audio, lambda waveform: waveform, whole, search)
    front = session(export_onnx(PooledCQT(front_end).eval(), {}))
    back = session(export_cqt_onnx(FromCQT(front_end, checkpoint.network), {}))
    return Pipeline(
        load_audio,
        lambda waveform: front.run([OUTPUT], {INPUT: waveform[None]})[0],
        lambda cqt: back.run([OUTPUT], {INPUT_CQT: cqt})[0][0],
        search,
    )


def whole(name: str, checkpoint: Checkpoint) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The one graph that a bundle holds, from waveform to embedding (D,)."""
    if name == "bundle":
        model = open_bundle(default_bundle()).model.read_bytes()
    else:
        model = export_onnx(InferenceModel(checkpoint.config.front_end, checkpoint.network), {})
    graph = session(model)
    return lambda waveform: graph.run([OUTPUT], {INPUT: waveform[None]})[0][0]


def session(model: bytes) -> onnxruntime.InferenceSession:
    """With the options of `Embedder`, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@contextmanager
def second_stage(collection: TrackCollection) -> Iterator[dict[str, Callable[[Any], Any]]]:
    """The parts of a query with a verdict, each taking what the one before gave; `collection` is searched."""
    embedder = Embedder(default_bundle(), "cpu", threads=1)
    assert embedder.verdict is not None
    with tempfile.TemporaryDirectory() as folder, connected(str(Path(folder, "chroma.db"))) as client:
        stored = TrackCollection.create(client, "chroma", embedder)
        levels = [track(TRACK_FRAMES, embedder.chroma_channels, seed) for seed in range(CANDIDATES)]
        vectors = np.random.default_rng(0).standard_normal((CANDIDATES, embedder.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        length_s = TRACK_FRAMES * embedder.frame_s
        rows = [Row(str(i), f"{i:064x}", length_s, 0.0, length_s) for i in range(CANDIDATES)]
        stored.upsert(rows, vectors, [encode(own) for own in levels], [{}] * CANDIDATES)
        reranker = Reranker(stored, embedder.verdict, embedder.frame_s)
        names = [row.track_id for row in rows]

        def found(heard: Heard) -> tuple[Heard, list[Match]]:
            (matches,) = collection.search(heard.embedding, CANDIDATES)
            return heard, [replace(match, track_id=name) for match, name in zip(matches, names, strict=True)]

        yield {
            "load": load_audio,
            "whole": embedder.hear,
            "retrieval": found,
            "rerank": lambda asked: reranker.rerank(*asked, LIMIT, 0.5),
        }
