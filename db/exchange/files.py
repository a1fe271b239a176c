"""Files as far as they can be read: packed with gzip or not, whole or cut off."""

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from db.errors import BadRecords

LINE_LIMIT = 64 << 20
"""Bytes of a line. What is longer is no file of lines."""
WHOLE_LIMIT = 256 << 20
"""Bytes, unpacked, of a file that has to be read whole."""
_CHUNK = 256 << 10


class Source:
    """A file's contents, unpacked.

    Attributes:
        damage: What ended reading early, known once that happened; empty where nothing did.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""

    def chunks(self) -> Iterator[bytes]:
        """All bytes, in pieces.

        Raises:
            BadRecords: There is no such file, or it may not be read.
        """
        try:
            with self.path.open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
                file.seek(0)
                raw = iter(partial(file.read, _CHUNK), b"")
                yield from self._unpacked(raw) if packed else raw
        except OSError as error:
            raise BadRecords(
                f"{self.path} cannot be read: {error.strerror}.\nGive the path of a file to import."
            ) from error

    def _unpacked(self, raw: Iterable[bytes]) -> Iterator[bytes]:
        """Not through ``gzip``, which keeps the last bytes of a file that is cut off to itself."""
        member = zlib.decompressobj(wbits=31)
        try:
            for piece in raw:
                packed = piece
                while packed:
                    yield member.decompress(packed, _CHUNK)
                    packed = member.unconsumed_tail
                    if member.eof and (packed := member.unused_data.lstrip(b"\0")):
                        member = zlib.decompressobj(wbits=31)
            yield member.flush()
        except zlib.error as error:
            self.damage = f"its packed data is damaged ({error}); nothing after that was read"
            return
        if not member.eof:
            self.damage = "its packed data ends early"

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers from 1; the last may be cut off.

        Raises:
            BadRecords: A line is longer than ``LINE_LIMIT``, or the file cannot be read.
        """
        number, rest = 0, b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                number += 1
                if line.strip():
                    yield number, line
            if len(rest) > LINE_LIMIT:
                raise BadRecords(
                    f"{self.path}: line {number + 1} is longer than {LINE_LIMIT >> 20} MB.\n"
                    "This is no file of lines; say with --format what it is."
                )
        if rest.strip():
            yield number + 1, rest

    def text(self) -> str:
        """All of it.

        Raises:
            BadRecords: It is larger than ``WHOLE_LIMIT``, or cannot be read.
        """
        parts, size = list[bytes](), 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > WHOLE_LIMIT:
                raise BadRecords(
                    f"{self.path} is larger than {WHOLE_LIMIT >> 20} MB, and it has to be read whole.\n"
                    "Split it, or import it where it was written and export that as portable."
                )
        return b"".join(parts).decode("utf-8-sig", errors="replace")

    def head(self) -> bytes:
        """The first bytes."""
        return next(self.chunks(), b"")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is there once the block is left, and not at all where that fails.

    Raises:
        BadRecords: It cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise BadRecords(
            f"{path} cannot be written: {error.strerror}.\nGive another path, or make room there."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
