"""Tuners on one machine take turns: while one times, no other compiles, computes references or times.

A lock on a file of the machine's, shared by those that compile and exclusive for the one that times. It ends
with its process, however that ends.
"""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from autotune.profile import Profile

LOCK = Path(tempfile.gettempdir()) / "autotune-turns.lock"


class Turns:
    """This process's place among the tuners of the machine; alone where the file cannot be opened.

    Args:
        profile: Told of the time spent waiting, as idle.
    """

    def __init__(self, profile: Profile, path: Path = LOCK) -> None:
        self._profile = profile
        self._file: IO[bytes] | None = None
        with suppress(OSError):
            path.touch(0o666)
        with suppress(OSError):
            self._file = path.open("rb")

    def compiling(self) -> AbstractContextManager[None]:
        """While others may compile, too."""
        return self._held(fcntl.LOCK_SH)

    def timing(self) -> AbstractContextManager[None]:
        """While the machine is this process's alone."""
        return self._held(fcntl.LOCK_EX)

    def close(self) -> None:
        """Gives up the place."""
        if self._file:
            self._file.close()

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        if self._file is None:
            yield
            return
        with self._profile.span("idle"):
            fcntl.flock(self._file, how)
        try:
            yield
        finally:
            if not self._file.closed:
                fcntl.flock(self._file, fcntl.LOCK_UN)


@contextmanager
def alone(path: Path = LOCK) -> Iterator[None]:
    """The machine is this process's alone, for what is timed outside of a pool: probes, an artifact."""
    turns = Turns(Profile(), path)
    try:
        with turns.timing():
            yield
    finally:
        turns.close()
