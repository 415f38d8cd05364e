"""Recordings that come with a request: streamed to a file within bounds, under a name of our own."""

from __future__ import annotations

import time
from asyncio import timeout
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ..audio.load import AUDIO_SUFFIXES
from .refusal import Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks
    from starlette.requests import Request

FIELD = "file"  # of the form
FORM_BYTES = 16_384  # that a form may have beside the file
LONGEST_NAME = 120  # characters of a file's name that are repeated to whoever sent it
JSON_BYTES = 262_144  # of an object
JSON_S = 10.0  # in which it has to arrive
JSON_PROBLEM = 1_000  # characters of what is said to be wrong with it
_MIB = 2**20

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Recording:
    """A file to decode, and what its sender calls it."""

    path: Path
    name: str
    uploaded: bool = True  # and so to be deleted


async def read_form(request: Request, form: type[_Model]) -> _Model:
    """The object of JSON that a request brings.

    It has to be called JSON, too: web pages elsewhere can send no such thing without being asked who they are.

    Raises
    ------
    Refused
        413 if it has more than `JSON_BYTES`, 415 if it is not JSON by its type, 422 if it is none or has other fields.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != b"application/json":
        raise Refused(415, "send an object of JSON, with Content-Type: application/json")
    body = bytearray()
    try:
        async with timeout(JSON_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > JSON_BYTES:
                    raise Refused(413, f"the object is too large: at most {JSON_BYTES} bytes are taken")
    except TimeoutError as error:
        raise Refused(408, "the upload took too long") from error
    except ClientDisconnect as error:
        raise Refused(400, "the upload was broken off") from error
    try:
        return form.model_validate_json(bytes(body))
    except ValidationError as error:
        told = (f"{'.'.join(map(str, entry['loc'])) or 'the object'}: {entry['msg']}" for entry in error.errors())
        raise Refused(422, "; ".join(told)[:JSON_PROBLEM]) from error


class Uploads:
    """The uploads under way, each a file in a folder.

    Parameters
    ----------
    folder : Path
    maximum_bytes : int
        Of a file.
    """

    def __init__(self, folder: Path, maximum_bytes: int) -> None:
        self._folder, self._maximum_bytes = folder, maximum_bytes
        self._numbers = count()

    async def receive(self, request: Request, deadline: float) -> Recording:
        """The file that comes in the form of a request, on the disk; the caller deletes it.

        Memory holds a piece of it at a time. If it is refused, nothing is left of it.

        Parameters
        ----------
        request : Request
        deadline : float
            Of `time.monotonic`.

        Raises
        ------
        Refused
            400 if the form is damaged or holds anything else, 408 if it takes too long, 413 if it is too large, 415 if
            the request has no form.
        """
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Refused(415, f'send the recording as the field "{FIELD}" of multipart/form-data, or name a path')
        self._check_size(int(request.headers.get("content-length") or 0) - FORM_BYTES)
        path = self._folder / f"{next(self._numbers)}.part"
        try:
            with path.open("xb") as file:
                form = _Form(file, boundary)
                n_bytes = 0
                async with timeout(max(0.0, deadline - time.monotonic())):
                    async for chunk in request.stream():
                        n_bytes += len(chunk)
                        self._check_size(n_bytes - FORM_BYTES)
                        form.write(chunk)
                        self._check_size(form.file_bytes)
                name = form.name()
            suffix = Path(name).suffix.lower()
            # The suffix has a say in how a file is read.
            return Recording(path.rename(path.with_suffix(suffix if suffix in AUDIO_SUFFIXES else ".audio")), name)
        except TimeoutError as error:
            path.unlink(missing_ok=True)
            raise Refused(408, "the upload took too long") from error
        except ClientDisconnect as error:
            path.unlink(missing_ok=True)
            raise Refused(400, "the upload was broken off") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._maximum_bytes:
            raise Refused(413, f"the file is too large: at most {self._maximum_bytes / _MIB:g} MiB are taken")


class _Form:
    """A form with one file, read piece by piece into an open file."""

    def __init__(self, file: BinaryIO, boundary: bytes) -> None:
        self._file = file
        self.file_bytes = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition: bytes | None = None
        self._name: str | None = None
        self._other_bytes = 0
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._keep(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._keep(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._take,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise Refused(400, f"the form cannot be read: {error}") from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refused(400, f"the form cannot be read: {error}") from error

    def name(self) -> str:
        """The name of the file, when all is read."""
        if not self._ended:
            raise Refused(400, "the form ends before its end")
        if self._name is None:
            raise Refused(400, f'the form has no file in the field "{FIELD}"')
        return self._name

    def _begin_part(self) -> None:
        self._disposition = None

    def _keep(self, into: bytearray, piece: bytes) -> None:
        self._other_bytes += len(piece)
        if self._other_bytes > FORM_BYTES:
            raise Refused(400, f"the form has more than {FORM_BYTES} bytes beside the file")
        into += piece

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode(errors="replace")
        if field != FIELD:
            raise Refused(
                400, f'the field "{shown(field)}": the form takes "{FIELD}" alone, options go into the address'
            )
        if self._name is not None:
            raise Refused(400, "one file at a time")
        self._name = shown(options.get(b"filename", b"").decode(errors="replace")) or "upload"

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._file.write(data[start:end])
        self.file_bytes += end - start

    def _end(self) -> None:
        self._ended = True


def shown(name: str) -> str:
    """The last part of a file's name, without what a terminal would obey, and no longer than people read."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in last)
    return printable if len(printable) <= LONGEST_NAME else "..." + printable[-LONGEST_NAME:]
