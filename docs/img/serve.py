"""Draws serve.png: the page of the service with a match of the demo, by a headless Chromium.

Run from the repository after `make demo`, with `serve --allow-audio --labels FILE` running over the demo::

    PYTHONPATH=tests python docs/img/serve.py demo/audio/amazing-grace/0.mp3 http://127.0.0.1:8765/
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from chromium import Chromium
from PIL import Image

WIDTH, HEIGHT = 1000, 1950  # pixels

recording, address = Path(sys.argv[1]), sys.argv[2]
program = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("chromium: not installed")
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    shot = Path(folder, "serve.png")
    with Chromium(program, Path(folder, "profile"), "--hide-scrollbars") as page:
        page.open(address)
        page.wait("!document.querySelector('#ask').hidden")
        page.choose("#file", recording)
        page.wait(
            "document.querySelector('#drawings').children.length > 0 && query.readyState > 0 && track.readyState > 0"
        )
        page.screenshot(shot, WIDTH, HEIGHT)
    Image.open(shot).convert("RGB").quantize(160).save(Path(__file__).with_name("serve.png"), optimize=True)
