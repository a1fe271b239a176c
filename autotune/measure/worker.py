"""A process that compiles or runs candidates, so that whatever they do, the tuner lives on.

The pool starts one of these, the *root*, as ``python -m autotune.measure.worker FD TARGET CPUS``. All others
are copies (``fork``) of one that has what they need, and so are ready within milliseconds: the root has the
compiler; a copy of it takes up a workload, the *home* of all that follows; copies of the home compile
candidates, the *builders*; and a copy of a builder, a *runner*, runs what the builder has compiled.

Candidates are compiled into memory (LLVM's JIT) and run there: nothing is linked, written to disk or sent
around. A runner that dies takes nothing along, for its builder has never run any of it. A process that is
copied must have one thread only: that is why only runners run kernels.
"""

import gc
import os
import resource
import signal
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import IO, Any

# tvm_ffi imports torch where it is installed: seconds and hundreds of megabytes that no worker needs.
_torch = sys.modules.get("torch")
sys.modules["torch"] = None  # type: ignore[assignment]
import tvm

del sys.modules["torch"]
if _torch is not None:
    sys.modules["torch"] = _torch

from tvm.target import Target

from autotune.measure import timing
from autotune.measure.case import Case
from autotune.measure.process import lacks_memory
from autotune.measure.protocol import (
    UNTUNED,
    Build,
    Check,
    Done,
    End,
    Ended,
    Fork,
    Forked,
    Pairs,
    Prepare,
    Probe,
    Reference,
    Reply,
    Request,
    Run,
    Time,
)
from autotune.measure.runner import Misbehaved, Runner
from autotune.measure.threads import bind, unbind
from autotune.system import caches, die_with_parent
from search.compiler import compile_kernel
from search.errors import InvalidCandidate, last_line
from search.problem import ErrorKind, MeasureError
from search.spaces.trace import apply_trace

UNKNOWN_CACHE = 1 << 26  # bytes to sweep where the system does not tell the size of its caches
_SAID_BYTES = 4096  # of the end of what a process wrote before it died


class Worker:
    """Answers requests. What a process may be asked follows from what its ancestors were asked."""

    def __init__(self, connection: Connection, target: Target, cpus: tuple[int, ...]) -> None:
        self._connection = connection
        self._target = target
        self._cpus = cpus
        self._copies: dict[int, IO[bytes]] = {}  # pid: what it writes to stderr
        self._built: dict[int, Any] = {}
        self._case: Case | None = None
        self._runner: Runner | None = None
        sizes = {(c.name, c.shared): c.bytes for cpu in cpus for c in caches(cpu)}
        cache_bytes = sum(sizes.values()) or UNKNOWN_CACHE
        self._kernels = timing.fixed_kernels(self.compile, len(cpus), cache_bytes)

    def serve(self) -> None:
        """Answers until the connection is closed."""
        self._connection.send(Done())
        gc.freeze()  # what is there now is shared with copies as long as nobody touches it
        while True:
            try:
                request = self._connection.recv()
            except EOFError:
                return
            reply = self.answer(request)
            if reply is not None:
                self._connection.send(reply)

    def answer(self, request: Request) -> Reply | None:
        """The answer; none in the copy that a ``Fork`` makes."""
        if isinstance(request, Fork):
            return self._fork(request)
        started = time.perf_counter()
        try:
            reply = self._do(request)
        except Misbehaved as error:
            reply = error.error
        except InvalidCandidate as error:
            reply = MeasureError(ErrorKind.INVALID, str(error))
        except Exception as error:
            text = f"{type(error).__name__}: {last_line(error)}"
            kind = ErrorKind.BUILD_ERROR if isinstance(request, Build) else ErrorKind.RUN_ERROR
            reply = MeasureError(ErrorKind.OUT_OF_MEMORY if lacks_memory(text) else kind, text)
        elapsed_s = time.perf_counter() - started
        return replace(reply, elapsed_s=elapsed_s) if isinstance(reply, Done) else reply

    def _do(self, request: Request) -> Reply:
        match request:
            case End():
                return self._end(request.pid)
            case Prepare():
                self._case = Case(request.workload, self._target)
                gc.freeze()
            case Reference():
                self.case.compute()
            case Build():
                self.build(request)
            case Probe():
                bind(self._cpus)
                return Done(timing.probe(self._kernels.probing()))
            case Check():
                runner = self.runner
                unbind(self._cpus)  # a process that checks is not asked to time anything
                return runner.answer(request)
            case Run() | Time() | Pairs():
                return self.runner.answer(request)
        return Done()

    def build(self, request: Build) -> None:
        """Compiles a candidate."""
        module = self.case.module
        self._built[request.key] = self.compile(
            module if request.trace == UNTUNED else apply_trace(module, request.trace)
        )

    def compile(self, module: tvm.IRModule) -> Any:
        """The compiled function."""
        return compile_kernel(module, self._target)

    @property
    def case(self) -> Case:
        assert self._case is not None, "Prepare comes first"
        return self._case

    @property
    def runner(self) -> Runner:
        """Made when first asked for; from then on this process has threads and cannot be copied."""
        if self._runner is None:
            bind(self._cpus)
            self._runner = Runner(self.case, self._built, self._kernels)
        return self._runner

    def _fork(self, request: Fork) -> Reply | None:
        handle = reduction.recv_handle(self._connection)
        said = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the copy has ended)
        pid = os.fork()
        if pid:
            os.close(handle)
            self._copies[pid] = said
            return Forked(pid)
        self._connection.close()
        self._connection = Connection(handle)
        self._copies.clear()
        os.dup2(said.fileno(), sys.stderr.fileno())
        die_with_parent()
        limit(request)
        return None

    def _end(self, pid: int) -> Ended:
        os.kill(pid, signal.SIGKILL)  # not reaped yet, so the pid is still its own
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with self._copies.pop(pid) as said:
            said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID_BYTES))
            lines = said.read().decode(errors="replace").strip().splitlines()
        ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return Ended(f"{ending}: {lines[-1].strip()[:300]}" if lines else ending)


def limit(request: Fork) -> None:
    """Binds this process to cores, and keeps it from taking the machine's memory."""
    if sys.platform != "linux":
        return
    if request.cpus:
        os.sched_setaffinity(0, request.cpus)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + request.memory, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # should the machine run out of memory all the same, this goes first


def main(worker: type[Worker] = Worker) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the pool decides
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # TVM would look for the names of what it was in, for long
    cpus = tuple(int(cpu) for cpu in sys.argv[3].split(","))
    worker(Connection(int(sys.argv[1])), Target(sys.argv[2]), cpus).serve()


if __name__ == "__main__":
    main()
