"""A service in a process of its own, as its users meet it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
from patience import PATIENCE_S
from prometheus_client.parser import text_string_to_metric_families


class Running:
    """A service in a process of its own; leave its ``with`` block to kill it."""

    def __init__(self, filled: Path, bundle: Path, folder: Path, *options: object, **environment: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        shutil.copytree(filled, folder / "own.db")
        command = [sys.executable, "-m", "bytecover2_milvus", "serve", "--uri", folder / "own.db", "--port", "0"]
        self.process = subprocess.Popen(
            [*map(str, command), "--bundle", str(bundle), *map(str, options)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.temporary)} | environment,
        )
        self.lines: list[str] = []
        self._ports: queue.Queue[int] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port = self._ports.get(timeout=PATIENCE_S)
            assert self.port, self.lines
        except BaseException:  # nobody enters the block that would end it
            self.process.kill()
            raise
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if '"listening"' in line:
                self._ports.put(json.loads(line)["port"])
        self._ports.put(0)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def log(self) -> list[dict]:
        """Its log, when it has ended."""
        self._reader.join(PATIENCE_S)
        return [json.loads(line) for line in self.lines]

    def temporary_files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def ask(self, path: Path, **options: object) -> httpx.Response:
        return self.http.post("/v1/query", params=options, files={"file": (path.name, path.read_bytes())})

    def decoders(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for file in children for pid in file.read_text().split()]

    def admitted(self) -> float:
        return self.metrics()["bytecover2_serve_admitted"]

    def metrics(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return {
            "|".join([sample.name, *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
        }
