"""Where candidates of one workload meet: two processes that hold what is compared.

What an application would vary is varied: the processes compile in opposite order what is new to both; a few
pairs at a time run in a new copy of one of them, with new inputs; each at new addresses, in random order.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from autotune.measure.check import INPUT_KINDS, badness
from autotune.measure.family import Builder, Family
from autotune.measure.limits import Limits
from autotune.measure.process import WorkersFailed, killed
from autotune.measure.protocol import UNTUNED, Build, Check, Done, Pairs, Reply, error_of
from autotune.measure.sequential import PairedTest
from autotune.measure.turns import Turns
from autotune.profile import Profile
from search.problem import BACK_TO_BACK, Between, Candidate, ErrorKind, MeasureError

PAIRS_A_PROCESS = 4  # so that what favours one side in a process favours it in few pairs only
PROVES_NOTHING = (ErrorKind.CRASH, ErrorKind.RUN_TIMEOUT, ErrorKind.BUILD_TIMEOUT, ErrorKind.OUT_OF_MEMORY)
"""Errors that may be another's fault."""


class Arena:
    """Checks and compares candidates of one workload, each compiled once; ``Pool.arena`` makes it.

    Args:
        builders: Two, of this workload.
    """

    def __init__(
        self, builders: Sequence[Builder], family: Family, limits: Limits, turns: Turns, profile: Profile
    ) -> None:
        self._builders = builders
        self._family = family
        self._limits = limits
        self._turns = turns
        self._profile = profile
        self._keys: dict[tuple[str, bool], int] = {}  # by trace, and whether it is the second copy of it
        self._failed: dict[int, MeasureError] = {}  # what cannot be compiled

    def check(self, candidate: Candidate, seed: int) -> Done | MeasureError:
        """Compares a candidate's outputs with the reference on inputs of every kind; the worst comes back.

        Nothing is timed and the reference takes one core, so each process takes its part of the kinds.

        Raises:
            ReferenceFailed: The processes died, and the workload cannot be run any more.
        """
        keys = self._build((candidate.trace, False), (UNTUNED, False))  # whom it meets if it passes
        if isinstance(keys, MeasureError):
            return keys
        parts = len(self._builders)
        requests = [Check(keys[0], seed, INPUT_KINDS[n::parts]) for n in range(parts)]
        replies = self._ask(self._builders, requests, self._turns.compiling())
        told = [r for r in replies if isinstance(r, Done) and math.isfinite(r.tolerance)]
        worst = max(told, key=lambda r: badness(r.max_error, r.tolerance), default=None)
        errors = [error_of(r) for r in replies if not isinstance(r, Done)]
        if errors and (worst is None or worst.max_error <= worst.tolerance):
            return min(errors, key=lambda e: e.kind in PROVES_NOTHING)
        if worst is None:
            return MeasureError(ErrorKind.WRONG_OUTPUT, "no inputs could tell whether its output is right")
        return worst

    def compare(
        self, first: Candidate | None, second: Candidate | None, seed: int, between: Between = BACK_TO_BACK
    ) -> PairedTest | MeasureError:
        """Times two candidates (None for the plain loops) in pairs until it is clear which is faster.

        Raises:
            ReferenceFailed: As ``check``.
        """
        traces = [c.trace if c else UNTUNED for c in (first, second)]
        keys = self._build((traces[0], False), (traces[1], traces[0] == traces[1]))
        if isinstance(keys, MeasureError):
            return keys
        one, other = keys
        test = PairedTest()
        for turn in itertools.count():
            count = min(test.next_pairs, PAIRS_A_PROCESS)
            request = Pairs(one, other, count, hash((seed, turn)) & 0x7FFFFFFF, between)
            builder = self._builders[turn % len(self._builders)]
            (reply,) = self._ask([builder], [request], self._turns.timing())
            if not isinstance(reply, Done):
                return error_of(reply)
            test.add(reply.samples_s, reply.rival_s)
            if test.decided:
                break
        return test

    def _build(self, *wanted: tuple[str, bool]) -> list[int] | MeasureError:
        """The keys under which both processes hold traces, compiled where they were not; or why not."""
        keys = [self._keys.setdefault(each, len(self._keys)) for each in wanted]
        traces = {key: trace for key, (trace, _) in zip(keys, wanted, strict=True)}
        if failed := [self._failed[key] for key in keys if key in self._failed]:
            return failed[0]
        if all(b.process.alive and key in b.built for b in self._builders for key in keys):
            return keys
        with self._turns.compiling(), self._profile.span("build"):
            for builder in self._builders:
                if not builder.process.alive:
                    self._family.restore(builder)
            self._family.await_reference(self._builders[0].home)  # restoring may have begun it anew
            orders = zip(self._builders, (keys, keys[::-1]), strict=True)
            missing = [[key for key in order if key not in b.built] for b, order in orders]
            for turn in itertools.zip_longest(*missing):
                asked = [(b, k) for b, k in zip(self._builders, turn, strict=True) if k is not None]
                if errors := self._build_at_once(asked, traces):
                    return errors[0]
        return keys

    def _build_at_once(
        self, asked: Sequence[tuple[Builder, int]], traces: Mapping[int, str]
    ) -> list[MeasureError]:
        """Each builder compiles one; the errors."""
        errors: list[MeasureError] = []
        for builder, key in asked:
            builder.process.send(Build(key, traces[key]))
        for builder, key in asked:
            reply = builder.process.receive(self._limits.build_s, ErrorKind.BUILD_TIMEOUT)
            if isinstance(reply, Done):
                builder.built[key] = reply.elapsed_s
                continue
            errors.append(error_of(reply))
            if not killed(reply):
                self._failed[key] = errors[-1]
        return errors

    def _ask(
        self,
        builders: Sequence[Builder],
        requests: Sequence[Check | Pairs],
        turn: AbstractContextManager[None],
    ) -> list[Reply]:
        """What new copies of the builders answer, each to its request, all at once."""
        try:
            with turn, self._profile.span("run"):
                runners = [self._family.runner(b) for b in builders]
                for runner, request in zip(runners, requests, strict=True):
                    runner.send(request)
                return [runner.receive(self._limits.check_s) for runner in runners]
        except WorkersFailed as error:
            return [MeasureError(ErrorKind.CRASH, str(error))] * len(requests)
        finally:
            for builder in builders:
                builder.end_runner()
