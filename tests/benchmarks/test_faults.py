"""What breaks an ingest loses nothing and stores nothing twice: a trial of the faults in
``benchmarks/robustness/faults.py``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import click
import pytest

from benchmarks.robustness import faults
from benchmarks.robustness.faults import Fault, Run, Scene, measure, scene_on


@pytest.fixture(scope="module")
def lite() -> Iterator[Scene]:
    """In a file system of its own, if one can be mounted here, which then can be filled or made read-only."""
    try:
        with scene_on("small", seed=1) as scene:
            yield scene
    except click.ClickException:
        with scene_on("lite", seed=1) as scene:
            yield scene


@pytest.fixture(scope="module")
def server() -> Iterator[Scene]:
    """A server of its own, which these tests may kill."""
    pytest.importorskip("milvus", reason="no Milvus server here; pip install milvus==2.3.5 (Linux, x86-64)")
    with scene_on("server", seed=2) as scene:
        yield scene


def said(scene: Scene, trial: Callable[[Scene], Run | None]) -> str:
    """What the ingest says that a fault broke, nothing being lost or there twice."""
    report = measure(Fault(trial.__name__, trial, ()), scene, 1)
    assert (report.lost, report.duplicated) == (0, 0), report
    (message,) = report.messages
    return message


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (faults.killed, ""),
        (faults.interrupted, "Aborted!"),
        (faults.index_cut_off, "4 added, 16 skipped, 4 updated; 24 rows in tracks at URI"),
        (faults.two_processes, "Error: URI: open in another process; wait for it to end, or .*"),
    ],
)
def test_milvus_lite(lite: Scene, trial: Callable[[Scene], Run | None], message: str) -> None:
    assert re.fullmatch(message, said(lite, trial))


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (faults.disk_full, "Error: .*No space left on device.*; make room, then run again"),
        (faults.no_room_for_waveforms, r"failed: .*: no room for its waveform in .* \(.+\); make room, or set TMPDIR"),
        (faults.read_only, "Error: URI: read-only; copy it to where you may write, or mend its permissions"),
    ],
)
def test_a_file_system_without_room(lite: Scene, trial: Callable[[Scene], Run | None], message: str) -> None:
    if not lite.folder.parent.is_mount():
        pytest.skip("needs to mount a tmpfs: root, or CAP_SYS_ADMIN in a container")
    assert re.fullmatch(message, said(lite, trial))


@pytest.mark.milvus
@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (faults.killed, ""),
        (faults.interrupted, "Aborted!"),
        (faults.server_killed, r".* 24 rows in tracks at URI|Error: .*Milvus (does not answer|is not ready) \(.*"),
    ],
)
def test_a_server(server: Scene, trial: Callable[[Scene], Run | None], message: str) -> None:
    assert re.fullmatch(message, said(server, trial))
