"""``doctor``: what works here, and what to do about what does not."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ..check import Check
from .milvus_target import MilvusTarget, collection_option, milvus_options, open_milvus
from .options import bundle_option
from .output import print_json
from .tables import listing_options, print_table

PACKAGES = {  # distribution: what it is needed for
    "pymilvus": "Milvus",
    "milvus-lite": "embedded Milvus",
    "onnxruntime": "embedding on the CPU",
    "onnxruntime-gpu": "embedding on CUDA",
    "torch": "training and export",
    "onnx": "export",
    "pyarrow": "Parquet",
    "ray": "ingest on several machines",
}


@click.command()
@milvus_options
@collection_option
@bundle_option
@listing_options("one object per check.")
def doctor(milvus: MilvusTarget, collection: str, bundle: Path | None, as_json: bool) -> None:
    """Check the installation, the bundle and Milvus. The exit code is 1 if something needed fails.

    \b
    Example:
      bytecover2-milvus doctor --uri http://localhost:19530
    """
    checks = [*_installed(), *_bundle(bundle), *_milvus(milvus, collection, bundle)]
    if as_json:
        for check in checks:
            print_json(asdict(check))
    else:
        print_table(("check", "status", "detail"), [(c.check, c.status, c.detail) for c in checks])
    if any(check.status == "failed" for check in checks):
        sys.exit(1)


def _installed() -> Iterator[Check]:
    from importlib import metadata  # a fifth of the time that --help would take

    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for package, purpose in PACKAGES.items():
        try:
            yield Check(package, "ok", f"{metadata.version(package)}, for {purpose}")
        except metadata.PackageNotFoundError:
            yield Check(package, "skipped", f"not installed, for {purpose}")


def _bundle(path: Path | None) -> Iterator[Check]:
    from ..embedding.bundle import default_bundle, open_bundle
    from ..embedding.embedder import Embedder
    from ..errors import BundleError, DeviceError

    try:
        contract = open_bundle(path or default_bundle()).contract
    except BundleError as error:
        yield Check("bundle", "failed", str(error))
        return
    yield Check("bundle", "ok", f"{contract.name}, {contract.embedding_dim}-d, model {contract.model_id}")
    for device, otherwise in (("cpu", "failed"), ("cuda", "skipped")):
        try:
            yield Check(device, "ok", Embedder(path, device).provider)
        except (BundleError, DeviceError) as error:
            yield Check(device, otherwise, str(error))


def _milvus(milvus: MilvusTarget, collection: str, bundle: Path | None) -> Iterator[Check]:
    from ..embedding.bundle import default_bundle, open_bundle
    from ..errors import BundleError, CollectionError, CollectionMissing, MilvusUnavailable
    from ..milvus.collection import TrackCollection
    from ..milvus.connection import is_folder
    from ..milvus.index import lite_size_warning

    try:
        if is_folder(milvus.uri) and not Path(milvus.uri).expanduser().exists():  # then it is made elsewhere, to see
            with TemporaryDirectory() as folder, open_milvus(MilvusTarget(f"{folder}/trial.db"), make=True) as client:
                yield Check("milvus", "ok", f"{client.get_server_version()}, tried in a folder of its own")
        with open_milvus(milvus, reads=True) as client:
            yield Check("milvus", "ok", f"{client.get_server_version()} at {milvus}")
            contract = open_bundle(bundle or default_bundle()).contract
            covers = TrackCollection.open(client, collection, contract.model_id, load=False)
            rows = covers.stored_rows()
            detail = f"{collection}: {rows} rows, fits the bundle"
            yield Check("collection", "ok", "; ".join(filter(None, (detail, lite_size_warning(client, rows)))))
            lack = covers.why_no_second_stage(contract)
            yield Check("second stage", "skipped" if lack else "ok", lack or f"note map {covers.chroma_id}")
    except CollectionMissing as error:
        yield Check("collection", "skipped", str(error))
    except MilvusUnavailable as error:
        yield Check("milvus", "failed", str(error))
    except BundleError:  # it has a line of its own already
        yield Check("collection", "failed", f"{collection}: not compared with the bundle, which failed")
    except CollectionError as error:
        yield Check("collection", "failed", str(error))
