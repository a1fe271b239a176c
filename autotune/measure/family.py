"""The processes of a pool: a root, a home for each workload, builders, runners. See ``worker``."""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from autotune.measure.limits import Limits
from autotune.measure.process import Process, Root, WorkersFailed
from autotune.measure.protocol import Done, Prepare, Reference
from search.errors import AutotuneError
from search.problem import ErrorKind, MeasureError, Workload

REFERENCE_TRIES = 3  # the process may be killed from outside while it computes
COPY_S = 0.015  # to copy a builder, and to end it in the end
JUDGES = 32  # kept, of the kernels used last: of 25 MB each
KNOWN = 256  # builds of a kernel that say what to expect of the next


class ReferenceFailed(AutotuneError):
    """A kernel that cannot even be run with plain loops: its candidates have nothing to be compared with."""

    exit_code = 41


@dataclass(eq=False)
class Home:
    """A workload, the process that has its inputs, and the copy that computes the reference output.

    Attributes:
        judge: That copy; it has compiled the reference. With many kernels, those of old ones are ended.
        computed: The output is there.
        builds: Seconds that the last of them took, None where the builder died of it.
    """

    workload: Workload
    process: Process
    judge: Process
    computed: bool = False
    tries: int = REFERENCE_TRIES
    builds: deque[float | None] = field(default_factory=lambda: deque(maxlen=KNOWN))

    def end(self) -> None:
        """Ends both of its processes."""
        self.judge.end()
        self.process.end()

    @property
    def built_s(self) -> list[float]:
        """Seconds of the builds that ended well."""
        return [s for s in self.builds if s is not None]


@dataclass(eq=False)
class Builder:
    """A process that compiles, what it holds (seconds by key), and its copy that runs that.

    Attributes:
        judge: It is a copy of what has compiled the reference.
        kept: What the process descends from, and what each of these held when it was copied.
    """

    home: Home
    process: Process
    cpu: int
    judge: bool = False
    built: dict[int, float] = field(default_factory=dict)
    kept: list[tuple[Process, dict[int, float]]] = field(default_factory=list)
    runner: Process | None = None

    def end_runner(self) -> None:
        """A process that has run something bad is of no more use."""
        if self.runner is not None:
            self.runner.end()
            self.runner = None


class Family:
    """Makes processes as they are needed, and anew where they have died."""

    def __init__(self, module: str, target: str, cpus: Sequence[int], limits: Limits) -> None:
        self._module = module
        self._target = target
        self._cpus = cpus
        self._limits = limits
        self._homes: OrderedDict[str, Home] = OrderedDict()
        self.root = self._start()

    def close(self) -> None:
        """Ends all processes: they die with their parents."""
        self.root.end()
        self._homes.clear()

    def home(self, workload: Workload) -> Home:
        """The home of a workload; those used longest ago make room for new ones.

        Raises:
            ReferenceFailed: Its inputs cannot be made.
        """
        home = self._homes.get(workload.hash)
        if home is None or not home.process.alive:
            while self._homes and sum(h.workload.bytes for h in self._homes.values()) > self._limits.homes:
                self._homes.popitem(last=False)[1].end()
            process = self._prepared(workload)
            home = self._homes[workload.hash] = Home(workload, process, self._judging(process))
        self._homes.move_to_end(workload.hash)
        for old in list(self._homes.values())[:-JUDGES]:
            if old.computed:
                old.judge.end()
        return home

    def await_reference(self, home: Home) -> None:
        """Waits until the reference output is there.

        Raises:
            ReferenceFailed: The workload cannot be run with plain loops.
        """
        while not home.computed:
            reply = home.judge.receive(self._limits.prepare_s)
            home.computed = isinstance(reply, Done)
            if isinstance(reply, MeasureError):
                home.judge.end()
                home.tries -= 1
                if reply.kind is not ErrorKind.CRASH or home.tries == 0:
                    home.end()
                    raise ReferenceFailed(f"{home.workload.name} cannot be run untuned: {reply.text}")
                home.judge = self._judging(home.process)

    @contextmanager
    def builders(self, home: Home, cpus: Sequence[int], judge: bool = False) -> Iterator[list[Builder]]:
        """A builder bound to each CPU, for a while: compilers never give all their memory back.

        Args:
            judge: They are copies of what has compiled the reference.
        """
        builders: list[Builder] = []
        try:
            builders.extend(Builder(home, self._copy(home, [cpu], judge), cpu, judge) for cpu in cpus)
            yield builders
        finally:
            for builder in builders:
                builder.end_runner()
                for process in (builder.process, *(process for process, _ in reversed(builder.kept))):
                    process.end()

    def keep(self, builder: Builder) -> None:
        """Goes on with a copy where, on average, that costs less than what may be lost with the builder."""
        builds, last = builder.home.builds, builder.kept[-1][1] if builder.kept else {}
        unsaved_s = sum(s for key, s in builder.built.items() if key not in last)
        if builds.count(None) * unsaved_s > len(builds) * COPY_S:
            copy = builder.process.copy([builder.cpu], self._limits.memory)
            builder.kept.append((builder.process, dict(builder.built)))
            builder.process = copy

    def restore(self, builder: Builder) -> list[int]:
        """Another process for a builder whose own has died; says what is to be compiled again."""
        held, builder.built = builder.built, {}
        builder.process.end()
        while builder.kept and not builder.process.alive:
            builder.process, builder.built = builder.kept.pop()
        if not builder.process.alive:
            builder.process, builder.built = self._copy(builder.home, [builder.cpu], builder.judge), {}
        return [key for key in held if key not in builder.built]

    def empty(self, builder: Builder) -> None:
        """Back to a process that has compiled nothing, where there is one or this one has died."""
        while builder.kept:
            builder.process.end()
            builder.process, _ = builder.kept.pop()
        if not builder.process.alive:
            builder.process = self._copy(builder.home, [builder.cpu], builder.judge)
        builder.built = {}

    def runner(self, builder: Builder) -> Process:
        """The copy of a builder that runs what it holds: a new one where there is none or it has died.

        Raises:
            WorkersFailed: The builder has died.
        """
        if builder.runner is None or not builder.runner.alive:
            builder.runner = builder.process.copy((), self._limits.memory)
        return builder.runner

    def _copy(self, home: Home, cpus: Sequence[int], judge: bool) -> Process:
        """A copy of a workload's home, which is made anew where it has died, or of its judge."""
        if judge and home.computed and home.judge.alive:
            with suppress(WorkersFailed):  # it was killed from outside; others compile the reference again
                return home.judge.copy(cpus, self._limits.memory)
        try:
            return home.process.copy(cpus, self._limits.memory)
        except WorkersFailed:
            home.process = self._prepared(home.workload)
            home.judge, home.computed = self._judging(home.process), False
            return home.process.copy(cpus, self._limits.memory)

    def _prepared(self, workload: Workload) -> Process:
        process = self._root_copy()
        reply = process.ask(Prepare(workload), self._limits.prepare_s)
        if not isinstance(reply, Done):
            process.end()
            text = reply.text if isinstance(reply, MeasureError) else str(reply)
            raise ReferenceFailed(f"{workload.name} cannot be prepared: {text}")
        return process

    def _root_copy(self) -> Process:
        try:
            return self.root.copy((), self._limits.memory)
        except WorkersFailed:  # it was killed from outside, and all its copies with it
            self.root.end()
            self.root = self._start()
            return self.root.copy((), self._limits.memory)

    def _judging(self, home: Process) -> Process:
        """A copy that computes the reference output while builders compile."""
        process = home.copy((), self._limits.memory)
        process.send(Reference())
        return process

    def _start(self) -> Root:
        return Root(self._module, self._target, self._cpus, self._limits.start_s)
