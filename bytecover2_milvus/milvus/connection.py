"""Connections to Milvus: to a server, or to an embedded Milvus Lite in this process.

An embedded Milvus Lite is a folder whose name ends in ``.db``; a server is an ``http://`` or ``https://`` address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from weakref import WeakKeyDictionary

from ..errors import CollectionError, CollectionLocked, MilvusUnavailable
from ..extras import why_not_imported
from .calls import call_with_retry
from .filters import and_filter as and_filter  # public here, too
from .filters import quote as quote

if TYPE_CHECKING:
    from pymilvus import MilvusClient

CONNECT_TIMEOUT_S = 5.0
DEFAULT_PORTS = {"http": 19530, "https": 443}  # what pymilvus takes where the address names none


class _Opened(NamedTuple):
    folder: Path
    database: str


# The embedded folder of each client of `connect`; closing a client leaves its Milvus Lite running.
_opened: WeakKeyDictionary[MilvusClient, _Opened] = WeakKeyDictionary()
_started: set[Path] = set()  # folders whose Milvus Lite was started by `connect`


def connect(
    uri: str | Path,
    token: str = "",
    timeout_s: float = CONNECT_TIMEOUT_S,
    *,
    database: str = "",
    server_pem: str | Path | None = None,
) -> MilvusClient:
    """A client whose Milvus has answered.

    Parameters
    ----------
    uri : str or Path
        ``http://host:19530``, ``https://host``, or the path of an embedded folder, whose name ends in ``.db`` and which
        is made if it does not exist.
    token : str
        ``user:password`` or an API key; only for servers.
    timeout_s : float
        Longest wait for a server's first answer, in seconds.
    database : str
        Of the Milvus; by default its own default.
    server_pem : str or Path, optional
        Certificate that a server at ``https://`` must show, or that of the authority which signed it; by default the
        authorities that gRPC knows are trusted.

    Raises
    ------
    MilvusUnavailable
        If nothing answers at `uri`, it is neither an address nor a ``.db`` folder, or `server_pem` cannot be read. No
        message holds the token or a password that stands in the address.
    CollectionLocked
        If another process has the folder open.
    CollectionError
        If the folder cannot be made or read.
    """
    uri = str(uri)
    if "://" in uri:
        return _connect_server(uri, token, timeout_s, database, server_pem)
    if is_folder(uri):
        return _open_folder(Path(uri).expanduser().resolve(), timeout_s, database)
    raise MilvusUnavailable(
        f"{without_password(uri)}: neither a server's address (http://host:19530) nor an embedded folder, whose name "
        "ends in .db"
    )


@contextlib.contextmanager
def connected(
    uri: str | Path, token: str = "", *, database: str = "", server_pem: str | Path | None = None
) -> Iterator[MilvusClient]:
    """A client as of `connect`, closed at the end, so that others may open an embedded folder.

    Raises
    ------
    MilvusUnavailable, CollectionLocked, CollectionError
        As `connect`.
    """
    client = connect(uri, token, database=database, server_pem=server_pem)
    try:
        yield client
    finally:
        close(client)


def close(client: MilvusClient) -> None:
    """Close `client`; the last on an embedded folder also frees it for others, which ``client.close()`` does not.

    A Milvus Lite that ran before, or that a client from elsewhere in this process uses too, goes on.
    """
    client.close()
    opened = _opened.pop(client, None)
    if opened is None:
        return
    folder = opened.folder
    if folder in _started and not any(folder == other.folder for other in _opened.values()) and not _is_used(folder):
        from milvus_lite.server_manager import server_manager_instance

        _started.discard(folder)
        server_manager_instance.release_server(str(folder))


def is_folder(uri: str) -> bool:
    """True if `uri` names an embedded folder, there or not."""
    return "://" not in uri and Path(uri).name.endswith(".db")


def is_embedded(client: MilvusClient) -> bool:
    """True if `client`, ours or not, talks to a Milvus Lite."""
    return str(call_with_retry(client.get_server_version)).startswith("milvus_lite")


def embedded_folder(client: MilvusClient) -> Path | None:
    """The folder that `client` has open through `connect`."""
    opened = _opened.get(client)
    return opened.folder if opened else None


def collections_of(client: MilvusClient) -> list[str]:
    """The names of all collections in the database of `client`, ours or not.

    Raises
    ------
    CollectionError
        If Milvus fails, or there is no such database.
    """
    from pymilvus.grpc_gen.milvus_pb2 import ShowCollectionsResponse

    opened = _opened.get(client)
    server = _server(opened.folder) if opened else None
    if not (opened and server) or "shards_num" in ShowCollectionsResponse.DESCRIPTOR.fields_by_name:
        return call_with_retry(client.list_collections)
    from milvus_lite.exceptions import MilvusLiteError

    try:  # pymilvus 2.6.0 lacks a field of what Milvus Lite would answer
        names: list[str] = server[1].list_collections(opened.database or "default")
        return names
    except MilvusLiteError as error:
        raise CollectionError(f"list_collections: {error}") from error


def without_password(uri: str) -> str:
    """`uri` fit to be shown: without a user and password, also where the address is none."""
    if is_folder(uri) or uri.startswith((".", "/", "~")):
        return uri
    scheme, separator, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _connect_server(
    uri: str, token: str, timeout_s: float, database: str, server_pem: str | Path | None
) -> MilvusClient:
    bare = without_password(uri)  # pymilvus repeats the address in its messages
    try:
        address = urlsplit(bare)
        port = address.port or DEFAULT_PORTS[address.scheme]
    except (ValueError, KeyError):
        raise MilvusUnavailable(f"{bare}: not an address like http://host:19530") from None
    token = token or unquote(uri.partition("://")[2].rpartition("@")[0])
    if server_pem and address.scheme != "https":
        raise MilvusUnavailable(
            f"{bare}: nothing is encrypted at http://, so no certificate is looked at; use https://"
        )
    tls = {"server_pem_path": str(server_pem)} if server_pem else {}
    client_class, failure = _quiet_pymilvus()
    try:
        return client_class(bare, token=token, timeout=timeout_s, db_name=database, **tls)
    except failure as error:
        raise MilvusUnavailable(f"{bare}: {_why_no_answer(address, port, timeout_s)}") from error
    except OSError as error:
        raise MilvusUnavailable(f"{server_pem}: the certificate cannot be read ({error.strerror})") from error


def _open_folder(folder: Path, timeout_s: float, database: str) -> MilvusClient:
    if not folder.parent.is_dir():
        raise CollectionError(f"{folder}: the folder above it does not exist; make it, or choose another place")
    if folder.is_file():
        raise CollectionError(f"{folder}: a file, not a folder (Milvus Lite 2 wrote files); choose another name")
    client_class, failure = _quiet_pymilvus()
    try:
        from milvus_lite.exceptions import DataDirLockedError
        from milvus_lite.server_manager import server_manager_instance
    except ImportError as error:
        raise MilvusUnavailable(f"{folder}: needs Milvus Lite; {why_not_imported(error, 'lite')}") from error
    ran = _server(folder) is not None
    with _logged_cause() as causes:
        address = server_manager_instance.start_and_get_uri(str(folder))
    cause = next(iter(causes), None)
    if isinstance(cause, DataDirLockedError):
        raise CollectionLocked(
            f"{folder}: open in another process; wait for it to end, or let several share the folder through"
            f' "milvus-lite server --host 127.0.0.1 --data-dir {folder}"'
        ) from cause
    if address is None:
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())
        raise CollectionError(f"{folder}: cannot be opened ({reason})") from cause
    try:
        # By the address: pymilvus 2.6.8 and 2.6.9 take a folder's path for the name of a database.
        client = client_class(address, timeout=timeout_s, db_name=database)
    except failure as error:
        raise CollectionError(f"{folder}: cannot be opened ({' '.join(str(error).split())})") from error
    _opened[client] = _Opened(folder, database)
    if not ran:
        _started.add(folder)
    return client


def _server(folder: Path) -> tuple[Any, Any, int] | None:
    """The Milvus Lite of a folder if one runs in this process: its server, its database, its port."""
    from milvus_lite.server_manager import server_manager_instance

    return getattr(server_manager_instance, "_servers", {}).get(str(folder))  # it does not tell otherwise


def _is_used(folder: Path) -> bool:
    """True if pymilvus knows of a client on the Milvus Lite of a folder; before 3.0 it does not tell."""
    try:
        from pymilvus.client.connection_manager import ConnectionManager
    except ImportError:
        return False
    server = _server(folder)
    if server is None:
        return False
    connections = ConnectionManager.get_instance().get_stats()["connections"]
    return any(entry["client_count"] for entry in connections if f"127.0.0.1:{server[-1]}" in entry["address"])


def _quiet_pymilvus() -> tuple[type[MilvusClient], type[Exception]]:
    """`MilvusClient` and its root exception; their loggers print a traceback for each failure that we report."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc starts: its C core writes to stderr
    from pymilvus import MilvusClient, MilvusException

    for logger in ("pymilvus", "milvus_lite", "grpc._server"):  # the last is Milvus Lite's own server
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return MilvusClient, MilvusException


@contextlib.contextmanager
def _logged_cause() -> Iterator[list[BaseException]]:
    """The exception that kept Milvus Lite from opening its folder: it logs it and raises nothing."""
    causes: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                causes.append(record.exc_info[1])

    logger = logging.getLogger("milvus_lite.server_manager")
    collector, level, propagate = Collector(), logger.level, logger.propagate
    logger.addHandler(collector)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield causes
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
        logger.propagate = propagate


def _why_no_answer(address: SplitResult, port: int, timeout_s: float) -> str:
    """Milvus says "illegal connection params or server unavailable" to everything; a bare connection tells more."""
    host = address.hostname or "localhost"
    try:
        socket.create_connection((host, port), min(timeout_s, 2.0)).close()
    except socket.gaierror:
        return f"the host name {host} is not known"
    except ConnectionRefusedError:
        return f"nothing listens on port {port}; start Milvus (docker compose up -d), or use an embedded folder (*.db)"
    except OSError as error:
        return f"no connection to port {port} ({error.strerror or error})"
    return (
        f"port {port} is open, but no Milvus answers or it refuses the token; check port, http or https, certificate"
        " and token"
    )
