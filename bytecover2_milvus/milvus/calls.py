"""Calls to Milvus: a time limit on each, a wait for a server that restarts, every failure as a `CollectionError`."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CollectionError, CollectionMissing, InputRefused, MilvusUnavailable

if TYPE_CHECKING:
    from pymilvus import MilvusClient

CALL_TIMEOUT_S = 30  # whole seconds: pymilvus waits for an index without limit if it is given a float

# Milvus' own error codes.
CONNECT_FAILED = 2
COLLECTION_NOT_FOUND = 100
INVALID_INPUT = frozenset({6, 1100})  # of Milvus Lite, of a server
NOT_LOADED = 101
# Of a server in its first seconds: a replica, channel, segment or node is not there yet (merr/errors.go in Milvus).
NOT_READY = frozenset({NOT_LOADED, 401, 500, 501, 503, 601, 602, 901, 902, 903, 905})
PAUSE_S = 0.5  # before a call is made again

_Answer = TypeVar("_Answer")


def call_with_retry(method: Callable[..., _Answer], /, *, timeout_s: int = CALL_TIMEOUT_S, **kwargs: Any) -> _Answer:
    """The answer of a method of `MilvusClient` within a time limit.

    A server that went away, or is back and not ready yet, is waited for, at most `CALL_TIMEOUT_S`.

    Raises
    ------
    MilvusUnavailable, CollectionMissing, InputRefused, CollectionError
        In one line, with Milvus' reason.
    """
    import grpc
    from pymilvus import MilvusException

    give_up = time.monotonic() + min(timeout_s, CALL_TIMEOUT_S)
    while True:
        try:
            return method(timeout=timeout_s, **kwargs)
        except MilvusException as error:
            code, text, cause = error.code, error.message, error
        except grpc.RpcError as error:
            code, text, cause = error.code(), error.details(), error
        if code not in NOT_READY | {CONNECT_FAILED} or time.monotonic() > give_up:
            break
        time.sleep(PAUSE_S)
        if code == NOT_LOADED:  # a server that was killed may have forgotten that it was
            with contextlib.suppress(MilvusException, grpc.RpcError):
                client: MilvusClient = getattr(method, "__self__")  # noqa: B009 (a callable need not have one)
                client.load_collection(kwargs["collection_name"], timeout=timeout_s)
    name = kwargs.get("collection_name", "")
    raise _error(code, text or f"error {code}", cause, method.__name__, name) from cause


def _error(code: Any, text: str, cause: Exception, call: str, name: str) -> CollectionError:
    """The error that `call_with_retry` raises for one of Milvus or gRPC, in a call for the collection `name`."""
    import grpc
    from pymilvus.exceptions import DataNotMatchException, ParamError

    what = f"{call} in collection {name}" if name else call
    reason = "; ".join(line.strip() for line in text.splitlines() if line.strip(" ^"))
    if code in NOT_READY:
        return MilvusUnavailable(f"{what}: Milvus is not ready ({reason}); run again when it is")
    if code in (CONNECT_FAILED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return MilvusUnavailable(f"{what}: Milvus does not answer ({reason}); run again when it is back")
    if code == COLLECTION_NOT_FOUND:
        return CollectionMissing(f"{name}: no collection of that name, or no more")
    if code in INVALID_INPUT or isinstance(cause, (DataNotMatchException, ParamError)):
        return InputRefused(f"{what}: {reason}")
    advice = "; make room, then run again" if os.strerror(errno.ENOSPC) in reason else ""
    return CollectionError(f"{what}: {reason}{advice}")
