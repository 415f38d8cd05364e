"""The packages of each extra, and the command that installs them."""

from __future__ import annotations

import re
from importlib.util import find_spec

DISTRIBUTION = "bytecover2-milvus"


def how_to_get(extra: str) -> str:
    """The pip command that installs what an extra needs.

    It names the requirements and not this package, so that it does the same for a clone and for a wheel.
    """
    from importlib import metadata  # a fifth of the time that --help would take

    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a folder on PYTHONPATH
        requirements = []
    ours = re.compile(rf"([^;]+?)\s*;\s*(?:(.+) and )?extra == ['\"]{re.escape(extra)}['\"]")
    matches = filter(None, map(ours.fullmatch, requirements))
    found = [f"{match[1]}; {match[2]}".replace('"', "'") if match[2] else match[1] for match in matches]
    if not found:
        return f'pip install ".[{extra}]" in the clone'
    return " ".join(["pip install", *(f'"{requirement}"' for requirement in found)])


def why_not_imported(error: ImportError, extra: str) -> str:
    """A line that names the package that is missing, or that is there and cannot be imported, and how to get it."""
    name = error.name or ""
    if isinstance(error, ModuleNotFoundError) and name and find_spec(name.partition(".")[0]) is None:
        return f"{name} is not installed: {how_to_get(extra)}"
    reason = " ".join(str(error).split())
    return f"{name or 'a package'} is installed but cannot be imported ({reason}): {how_to_get(extra)}"
