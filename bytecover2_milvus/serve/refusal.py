"""Refusals: one line of JSON each, with the status that says whose fault it is."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import (
    AudioBeyondLimits,
    AudioError,
    BytecoverError,
    CollectionMissing,
    InputRefused,
    MilvusUnavailable,
)

RETRY_S = 5  # when a Milvus that is away may be back


class Refused(Exception):
    """A request that is not answered, with an HTTP status and a line for whoever asked."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, " ".join(reason.split()), dict(headers or {})


def refusal_of(error: BytecoverError, path: str = "", name: str = "") -> Refused:
    """The refusal that an error stands for. `path`, which is nobody's business, becomes the `name` of the recording."""
    reason = str(error)
    if path:
        reason = reason.replace(path, name) if path in reason else f"{name}: {reason}"
    if isinstance(error, AudioBeyondLimits):
        return Refused(413, reason.partition(";")[0] + "; this service takes no more")
    if isinstance(error, AudioError):
        return Refused(422, reason)
    if isinstance(error, InputRefused):
        return Refused(422, str(error))
    if isinstance(error, (MilvusUnavailable, CollectionMissing)):
        return Refused(503, str(error), {"Retry-After": str(RETRY_S)})
    return Refused(500, str(error))
