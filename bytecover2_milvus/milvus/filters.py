"""Filters in Milvus' language: strings as literals, and a user's filter joined with conditions of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import CollectionError

# Brackets, strings and quotes in a filter. Strings end as in Milvus' own grammar (internal/parser/planparserv2/Plan.g4)
# and in Milvus Lite's, neither of which has comments; a quote by itself opens a string that does not end.
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_DELIMITERS = re.compile(r"""(?s)"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*'|["'()\[\]{}]""")

_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"})


def quote(value: str | Iterable[str]) -> str:
    """A string, or a list of strings, as a literal of Milvus' filter language.

    Only what would end the literal is escaped: Milvus Lite and the server know few other escapes in common.
    """
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPES) + '"'
    return f"[{', '.join(map(quote, value))}]"


def and_filter(filter: str, condition: str) -> str:
    """A filter for the rows that pass a user's filter and also a condition of ours, which the former cannot lift.

    Raises
    ------
    CollectionError
        If a bracket or a string of `filter` does not end, or ends what it did not begin. A server reads such a filter
        up to there and ignores the rest, so ``size > 0) or (id != ""`` would lift the condition.
    """
    if not filter.strip():
        return condition
    expected: list[str] = []
    for delimiter in _DELIMITERS.findall(filter):
        if delimiter in _BRACKETS:
            expected.append(_BRACKETS[delimiter])
        elif len(delimiter) == 1 and (not expected or delimiter != expected.pop()):
            raise CollectionError(f"filter {filter!r}: a {delimiter} too many; write texts in double quotes")
    if expected:
        raise CollectionError(f"filter {filter!r}: a {expected[-1]} is missing at the end")
    return f"({filter}) and {condition}" if condition else f"({filter})"
