"""A page from its parts: the frame, style and script that lie beside this file."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from importlib import resources
from string import Template

MEDIA = "blob:"  # of sound that is in the page itself
_IMPORT = re.compile(r"^import .*;\n", re.MULTILINE)


def document(
    title: str, body: str, *, styles: Sequence[str], scripts: Sequence[str], rules: str = "", media: str = MEDIA
) -> str:
    """The text of a page, whose policy forbids every request and every script but its own.

    Parameters
    ----------
    title : str
        Plain text.
    body : str
        HTML: names in it are escaped already, by `escape`.
    styles : sequence of str
        Names of style sheets in this package, in order.
    scripts : sequence of str
        Names of modules in this package, each after those that it imports: they become one.
    rules : str
        CSS of this page alone, after all style sheets.
    media : str
        Where sound may come from, in the words of a Content-Security-Policy.
    """
    style = "".join(map(template, styles)) + rules
    code = "".join(_IMPORT.sub("", template(name)) for name in scripts)
    return Template(template("page.html")).substitute(
        title=escape(title), body=body, style=style, script=code, style_hash=_hash(style), script_hash=_hash(code),
        media=media,
    )  # fmt: skip


def template(name: str) -> str:
    """The text of a file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def escape(text: object) -> str:
    """Text for HTML, in attributes too; of names that are no UTF-8, the odd bytes as escapes."""
    return html.escape(str(text).encode("utf-8", "backslashreplace").decode("utf-8"))


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _hash(text: str) -> str:
    """The name of an inline style or script in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
