"""Draws explain.png and report.png: pages of `explain` and `evaluate --html` of the demo, by a headless Chromium.

Each picture has the page as a desk's screen shows it in light, beside a phone's in dark. Run from the repository after
`make demo`::

    PYTHONPATH=tests python docs/img/pages.py demo
"""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from chromium import Chromium
from PIL import Image

QUERY, TRACK = "scarborough-fair/0", "scarborough-fair/1"
HEIGHT, DESK, PHONE, GAP = 1700, 1000, 390, 24  # pixels
FRAME = (127, 132, 145)
# Cards out of sight are not drawn otherwise, and the picture goes beyond the screen.
DRAW = "document.querySelectorAll('.group').forEach((card) => { card.style.contentVisibility = 'visible'; })"


def picture(page: Chromium, address: str, out: Path, phone_from: str) -> None:
    """Write a picture of the page; the phone's begins at the element `phone_from`."""
    drawn = Image.new("RGB", (DESK + GAP + PHONE, HEIGHT), FRAME)
    for scheme, width, x, start in (("light", DESK, 0, ""), ("dark", PHONE, DESK + GAP, phone_from)):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=bool(start)
        )
        page.open(address)
        page.evaluate(DRAW)
        if start:
            page.evaluate(f"scrollTo(0, document.querySelector({start!r}).getBoundingClientRect().top - 16)")
        page.evaluate("new Promise((drawn) => setTimeout(drawn, 500))")
        shot = base64.b64decode(page.send("Page.captureScreenshot")["data"])
        drawn.paste(Image.open(io.BytesIO(shot)), (x, 0))
    drawn.quantize(160).save(out, optimize=True)


demo = Path(sys.argv[1])
program = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("chromium: not installed")
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    ours = [sys.executable, "-m", "bytecover2_milvus"]
    named = []
    for track_id in (QUERY, TRACK):
        named.append(Path(folder, track_id.replace("/", "-") + ".mp3"))
        shutil.copyfile(demo / "audio" / f"{track_id}.mp3", named[-1])
    explained, report = Path(folder, "explain.html"), demo / "report.html"
    subprocess.run([*ours, "explain", *named, "--out", explained], check=True)
    store = ["--uri", demo / "demo.db", "--collection", "demo"]
    subprocess.run([*ours, "evaluate", *store, "--rerank", "100", "--html", report], check=True)
    text = report.read_text(encoding="utf-8")
    report.write_text(text.replace(f"{demo.absolute()}/", "/home/me/demo/"), encoding="utf-8")
    with Chromium(program, Path(folder, "profile"), "--hide-scrollbars") as page:
        here = Path(__file__).parent
        picture(page, explained.as_uri(), here / "explain.png", "main")
        picture(page, report.absolute().as_uri(), here / "report.png", ".part")
