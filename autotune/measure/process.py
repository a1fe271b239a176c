"""A worker process as the pool sees it: it is asked, it answers, dies or says nothing, and is ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from pathlib import Path

from autotune.measure.protocol import Done, End, Ended, Fork, Forked, Reply, Request
from search.errors import AutotuneError
from search.problem import ErrorKind, MeasureError

_TICK_S = 1e-3  # at least, between two looks at a process that waits for a core
_COPY_S = 10.0  # to copy a process or to end one: milliseconds, but on a machine that swaps


class WorkersFailed(AutotuneError):
    """Workers cannot be started, so nothing can be measured."""

    exit_code = 40


class Process:
    """A worker process. Whoever asks is answered with a value, also by the dead.

    Attributes:
        alive: It has been neither ended nor found dead.
    """

    def __init__(self, pid: int, connection: Connection, parent: "Process | None") -> None:
        self.pid = pid
        self.alive = True
        self.connection = connection
        self._parent = parent
        self._asked_s = self._clock_s()

    def copy(self, cpus: Sequence[int], memory: int) -> "Process":
        """A process like this one, which must not have run any kernel; see ``protocol.Fork``.

        Raises:
            WorkersFailed: This one is dead.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self.send(Fork(tuple(cpus), memory))
            with suppress(OSError):  # it has died; receiving says so
                reduction.send_handle(self.connection, theirs.fileno(), self.pid)
            reply = self.receive(_COPY_S, ErrorKind.CRASH)
        if not isinstance(reply, Forked):
            ours.close()
            text = reply.text if isinstance(reply, MeasureError) else str(reply)
            raise WorkersFailed(f"a worker process could not be copied: {text}")
        return Process(reply.pid, Connection(ours.detach()), self)

    def ask(self, request: Request, limit_s: float, timeout: ErrorKind = ErrorKind.RUN_TIMEOUT) -> Reply:
        """Sends a request and waits for the answer."""
        self.send(request)
        return self.receive(limit_s, timeout)

    def send(self, request: Request) -> None:
        self._asked_s = self._clock_s()
        with suppress(OSError):  # it has died; receiving says so
            self.connection.send(request)

    def receive(self, limit_s: float, timeout: ErrorKind = ErrorKind.RUN_TIMEOUT) -> Reply:
        """The answer; a process that has none within ``limit_s`` of ``spent_s`` is ended.

        Args:
            timeout: The kind of the error then.
        """
        if not self.alive:
            return MeasureError(ErrorKind.CRASH, "it was ended")
        while not self.connection.poll(max(_TICK_S, limit_s - self.spent_s())):
            if self.spent_s() >= limit_s:
                self.end()
                return MeasureError(timeout, f"not done after {limit_s:.2g} s")
        try:
            reply: Reply = self.connection.recv()
        except (EOFError, OSError):
            return self.autopsy()
        return reply

    def spent_s(self) -> float:
        """Seconds since it was last asked, less those in which it waited for a core that others had."""
        return self._clock_s() - self._asked_s

    def _clock_s(self) -> float:
        queued_ns = 0
        with suppress(OSError, IndexError):  # where there is no Linux, all seconds count
            queued_ns = int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1])
        return time.monotonic() - queued_ns / 1e9

    def autopsy(self) -> MeasureError:
        """Why it died."""
        text = self.end()
        kind = ErrorKind.OUT_OF_MEMORY if lacks_memory(text) else ErrorKind.CRASH
        return MeasureError(kind, text)

    def end(self) -> str:
        """Kills it, if it still lives, and says how it ended."""
        if not self.alive:
            return ""
        self.alive = False
        self.connection.close()
        return self._bury()

    def _bury(self) -> str:
        assert self._parent is not None
        reply = self._parent.ask(End(self.pid), _COPY_S) if self._parent.alive else None
        return reply.text if isinstance(reply, Ended) else _ORPHANED


_KILLED = "killed by SIGKILL"
_ORPHANED = "its parent process died"


def killed(reply: Reply) -> bool:
    """Whether a process has died as by another's hand, and what it was asked may be innocent of it."""
    if not isinstance(reply, MeasureError) or reply.kind is not ErrorKind.CRASH:
        return False
    return reply.text.startswith((_KILLED, _ORPHANED))


_NO_MEMORY = ("bad_alloc", "out of memory", "MemoryError", "Cannot allocate", "Unable to allocate")


def lacks_memory(text: str) -> bool:
    """Whether an error's text says that memory was not to be had, in the words of whoever asked for it."""
    return any(word in text for word in _NO_MEMORY)


class Root(Process):
    """The process that all others are copies of.

    Args:
        module: What it runs; tests put misbehaving ones here.

    Raises:
        WorkersFailed: It does not start.
    """

    def __init__(self, module: str, target: str, cpus: Sequence[int], limit_s: float) -> None:
        ours, theirs = socket.socketpair()
        source = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH")) if p)
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), target, ",".join(map(str, cpus))],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in the terminal is the tuner's alone
                env={**os.environ, "PYTHONPATH": path, "TVM_NUM_THREADS": str(len(cpus)),
                     "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        super().__init__(self._popen.pid, Connection(ours.detach()), None)
        started = self.receive(limit_s)
        if not isinstance(started, Done):
            self.end()
            said = started.text if isinstance(started, MeasureError) else str(started)
            raise WorkersFailed(
                f"the worker process: {said}; to see why: {sys.executable} -c 'import {module}'"
            )

    def _bury(self) -> str:
        self._popen.kill()
        code = self._popen.wait()
        return f"exited with {code}" if code >= 0 else f"killed by signal {-code}"


def answered(processes: Sequence[Process], limit_s: float) -> list[Process]:
    """Those that have answered or died; waits until there is one, or the time is over."""
    ready = wait([p.connection for p in processes], timeout=max(_TICK_S, limit_s))
    return [p for p in processes if p.connection in ready]
