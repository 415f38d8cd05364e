"""``verify``: is a bundle whole, what it says, and does it work here?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from ..options import device_option
from .output import print_json
from .tables import listing_options, print_table


@click.command()
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path), metavar="[BUNDLE]...")
@device_option
@click.option("--trust", is_flag=True, help="Run a bundle's embed.py even if this package does not know it.")
@listing_options("one object per check.")
def verify(bundles: tuple[Path, ...], device: str, trust: bool, as_json: bool) -> None:
    """Check bundles, by default the one that ships: files, contract, graph, golden embeddings, embed.py, checkpoint.

    A changed file is named, with what to do. The golden embeddings are computed on the CPU and, where it works, on
    CUDA; --device chooses one. Exit code 1 if anything failed.

    \b
    Example:
      bytecover2-milvus verify bundles/mine
    """
    from ..embedding.bundle import default_bundle
    from ..verify import verify as verify_bundle

    failed = False
    for bundle in bundles or (default_bundle(),):
        checks, records = [], []
        for check in verify_bundle(bundle, device, trust=trust):
            checks.append(check)
            records.append({"bundle": str(bundle)} | asdict(check))
            if as_json:
                print_json(records[-1])
        if not as_json:
            rows = [(check.check, check.status, check.detail) for check in checks]
            print_table(("check", "status", "detail"), rows, str(bundle), records)
        failed |= any(check.status == "failed" for check in checks)
    if failed:
        sys.exit(1)
