"""ONNX Runtime neither sends nor keeps anything of its users where this project imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from bytecover2_milvus.embedding.bundle import default_bundle
from bytecover2_milvus.export.parity import melody

SHOW = (
    "import os\n"
    "for fd in os.listdir('/proc/self/fd'):\n"
    "    try: print(os.readlink(f'/proc/self/fd/{fd}'))\n"
    "    except OSError: pass\n"  # that of the listing itself
)
RUN_AS_SCRIPT = (
    "import contextlib, runpy, sys\n"
    "sys.argv = sys.argv[1:]\n"
    "with contextlib.suppress(SystemExit): runpy.run_path(sys.argv[0], run_name='__main__')\n"
)
EMBED = "from bytecover2_milvus import Embedder\nEmbedder(device='cpu', threads=1)\n"
COMMAND = (
    "import sys\n"
    "from bytecover2_milvus.cli import main\n"
    "main(['embed', sys.argv[1], '--out', 'x.npz'], standalone_mode=False)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (EMBED, []),
        (COMMAND, ["a.wav"]),
        (RUN_AS_SCRIPT, [default_bundle() / "embed.py", default_bundle(), "a.wav"]),
    ],
    ids=["Embedder", "command", "embed.py"],
)
def test_nothing_is_written_and_no_connection_opened(code, arguments, tmp_path):
    home, temporary, kept = tmp_path / "home", tmp_path / "temporary", tmp_path / "kept"
    home.mkdir()
    temporary.mkdir()
    kept.write_text("mine")
    (temporary / ".ses").symlink_to(kept)  # where ONNX Runtime 1.32 writes a session's number
    soundfile.write(tmp_path / "a.wav", melody(30_000, seed=0), 22_050)
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", code + SHOW, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith((str(tmp_path), "socket:"))] == []
    assert list(home.rglob("*")) == [] and kept.read_text() == "mine"
    assert list(temporary.iterdir()) == [temporary / ".ses"]


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_who_sets_the_variable_decides(chosen, tmp_path):
    code = "import os, bytecover2_milvus; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": chosen}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == f"{chosen}\n"


def test_every_program_that_ships_says_it_before_it_imports_onnx_runtime():
    root = Path(__file__).parents[2] / "export"
    for path, loads in (
        (root / "embed.py", "import onnxruntime"),
        (root / "consumers" / "embed.mjs", 'import("onnxruntime-node")'),
        (root / "consumers" / "embed.cpp", "Ort::Env env("),
    ):
        text = path.read_text(encoding="utf-8")
        assert 0 < text.index("ORT_DISABLE_TELEMETRY") < text.index(loads), path.name
