"""A contestant's process, as the benchmark sees it: stopped unless it is asked something."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection

from autotune.bench.protocol import Enter, Entered, Failure, Reply, Request, Sample, Started
from autotune.hardware import usable_cpus

_START_S = 60.0
_END_S = 10.0  # from closing its connection to its end


class Process:
    """Answers one request at a time; after an answer all its threads and children stand still.

    Everything that it starts is in its process group, which gets SIGSTOP and SIGCONT: thread pools that spin
    while they wait for more work (ONNX Runtime's, OpenMP's, TVM's) cannot take time from the next contestant.
    """

    def __init__(self, threads: int) -> None:
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill)
        count = str(threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "autotune.bench.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            process_group=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                 "TVM_NUM_THREADS": count, "OMP_NUM_THREADS": count},
        )  # fmt: skip
        theirs.close()
        if sys.platform == "linux":  # ours may have been narrowed by TVM
            os.sched_setaffinity(self._process.pid, usable_cpus())
        self._connection = Connection(ours.detach())

    def enter(self, request: Enter, limit_s: float) -> Entered | Failure:
        """Gets it ready to run."""
        started = self._receive(_START_S)
        reply = self._ask(request, limit_s) if isinstance(started, Started) else started
        assert isinstance(reply, (Entered, Failure))
        return reply

    def sample(self, request: Sample, limit_s: float) -> float | Failure:
        """Runs it."""
        reply = self._ask(request, limit_s)
        assert isinstance(reply, (float, Failure))
        return reply

    def kill(self) -> None:
        """Ends it and all that it started."""
        self._connection.close()
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._errors.close()

    def _ask(self, request: Request, limit_s: float) -> Reply:
        self._signal(signal.SIGCONT)
        with suppress(OSError):  # it has died; receiving says so
            self._connection.send(request)
        reply = self._receive(limit_s)
        self._signal(signal.SIGSTOP)
        with suppress(ChildProcessError):  # it has ended; else wait until all its threads stand
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return reply

    def _receive(self, limit_s: float) -> Reply:
        if not self._connection.poll(limit_s):
            return Failure(f"no answer after {limit_s:g} s")
        try:
            reply: Reply = self._connection.recv()
        except (EOFError, OSError):
            return Failure(self._epitaph())
        return reply

    def _epitaph(self) -> str:
        """How it ended, and the last it said."""
        try:
            code = self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{ending}: {said[-1].strip()[:200]}" if said else ending

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self._process.pid, number)
