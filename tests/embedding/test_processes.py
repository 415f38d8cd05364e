"""An embedder in threads, event loops and processes: each gives what it gives alone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed

from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.export.parity import melody

WAVEFORMS = [melody(90_000, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    """With threads of its own, which no fork takes along."""
    return Embedder(tiny_bundle, device="cpu", threads=2)


@pytest.fixture(scope="module")
def expected(embedder: Embedder) -> np.ndarray:
    return embedder.embed_batch(WAVEFORMS)


def embed(embedder: Embedder, waveform: np.ndarray) -> np.ndarray:
    return embedder.embed(waveform)


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_worker_processes_get_it_pickled(embedder, expected, start):
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        got = list(pool.map(embed, [embedder] * 3, WAVEFORMS))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_joblib_shares_it_among_processes(embedder, expected):
    got = Parallel(n_jobs=2, backend="loky")(delayed(embed)(embedder, waveform) for waveform in WAVEFORMS)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_an_event_loop_goes_on_while_it_embeds(embedder, expected):
    async def main() -> tuple[list[np.ndarray], int]:
        embedding = asyncio.gather(*(asyncio.to_thread(embedder.embed, waveform) for waveform in WAVEFORMS))
        turns = 0
        while not embedding.done():
            await asyncio.sleep(0)
            turns += 1
        return await embedding, turns

    got, turns = asyncio.run(main())
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert turns > 1


FORKED = """
import os, sys
import numpy as np
from bytecover2_milvus import Embedder
from bytecover2_milvus.export.parity import melody

waveform = melody(90_000, 0)
embedder = Embedder(sys.argv[1], device="cpu", threads=2)
expected = embedder.embed(waveform)
unused = Embedder(sys.argv[1], device="cpu", threads=2)
for generation in range(2):  # a child, and a child of that
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for _ in range(2):
        np.testing.assert_allclose(embedder.embed(waveform), expected, atol=1e-6)
print("embedded", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_was_forked_embeds_and_ends(tiny_bundle):
    """To free a session is to wait for its threads, which are in the parent: the process would not end."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, tiny_bundle], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "embedded\n", "")
