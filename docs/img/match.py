"""Draws match.png: the evidence of a match of the demo, as `explain` has it, by a headless Chromium.

Run from the repository after `make demo`::

    python docs/img/match.py demo
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.pages.explain import write_page

SONG, QUERY, TRACK = "scarborough-fair", 0, 1
WIDTH, HEIGHT = 1000, 650  # pixels
# The picture has facts and drawing side by side; players, choices and the rest of the page are left out.
STYLE = """
  html { overflow: hidden }
  main { max-width: 980px; padding: 14px; margin: 0; display: grid; grid-template-columns: 270px 1fr; gap: 20px;
    align-items: start }
  main > * { margin: 0 !important } h1 { font-size: 20px } h1 span { display: block } .words { font-size: 15px }
  .facts { grid-template-columns: 1fr !important; gap: 5px !important } .facts > * { padding: 2px 12px !important }
  .facts dd { font-size: 15px }
  .eyebrow, .players, .choices, .view h3, .strips, .hint, section.card > p { display: none }
  section[aria-labelledby=heard] { display: none }
"""

demo = Path(sys.argv[1])
chromium = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("chromium: not installed")
with tempfile.TemporaryDirectory() as folder:
    query, track = (
        shutil.copyfile(demo / "audio" / SONG / f"{number}.mp3", Path(folder, f"{SONG}-{number}.mp3"))
        for number in (QUERY, TRACK)
    )
    page, shot = Path(folder, "match.html"), Path(folder, "match.png")
    write_page(query, track, Embedder(device="cpu"), page, sound=False)
    text = page.read_text(encoding="utf-8")
    text = text.replace('http-equiv="Content-Security-Policy"', 'name="policy"')  # which allows no other style
    page.write_text(text.replace("</style>", f"{STYLE}</style>", 1), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
    options += [f"--user-data-dir={folder}/profile", f"--screenshot={shot}", page.as_uri()]
    subprocess.run([chromium, *options], check=True, stderr=subprocess.DEVNULL)
    Image.open(shot).convert("RGB").quantize(128).save(Path(__file__).with_name("match.png"), optimize=True)
