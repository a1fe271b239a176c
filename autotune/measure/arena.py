"""Where candidates of one workload meet: two processes that hold what is compared.

What an application would vary is varied: the processes compile what meets in opposite order; a few pairs at a
time run in a new copy of one of them, with new inputs; each at new addresses, in random order.
"""

import itertools
import math
from collections.abc import Sequence

from autotune.measure.check import INPUT_KINDS, LEAST
from autotune.measure.family import Builder, Family
from autotune.measure.limits import Limits
from autotune.measure.process import WorkersFailed
from autotune.measure.protocol import UNTUNED, Build, Check, Done, Pairs, Reply, error_of
from autotune.measure.sequential import PairedTest
from autotune.measure.turns import Turns
from autotune.profile import Profile
from search.problem import BACK_TO_BACK, Between, Candidate, ErrorKind, MeasureError

PAIRS_A_PROCESS = 4  # so that what favours one side in a process favours it in few pairs only


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

    def check(self, candidate: Candidate, seed: int) -> Reply:
        """Compares a candidate's outputs with the reference on inputs of every kind; the worst comes back.

        Nothing is timed and the reference takes one core, so each process takes its part of the kinds.
        """
        keys = self._build((candidate.trace, False))
        if isinstance(keys, MeasureError):
            return keys
        parts = len(self._builders)
        replies = self._ask(*(Check(keys[0], seed, INPUT_KINDS[n::parts]) for n in range(parts)))
        done = [r for r in replies if isinstance(r, Done)]
        if len(done) < parts:
            return next(r for r in replies if not isinstance(r, Done))
        worst = max(done, key=lambda r: r.max_error / max(r.tolerance, LEAST))
        if math.isinf(worst.tolerance):
            return MeasureError(ErrorKind.WRONG_OUTPUT, "no inputs could tell whether its output is right")
        return worst

    def compare(
        self, first: Candidate | None, second: Candidate | None, seed: int, between: Between = BACK_TO_BACK
    ) -> PairedTest | MeasureError:
        """Times two candidates (None for the plain loops) in pairs until it is clear which is faster."""
        traces = [c.trace if c else UNTUNED for c in (first, second)]
        keys = self._build((traces[0], False), (traces[1], traces[0] == traces[1]))
        if isinstance(keys, MeasureError):
            return keys
        one, other = keys
        test = PairedTest()
        for turn in itertools.count():
            count = min(test.next_pairs, PAIRS_A_PROCESS)
            request = Pairs(one, other, count, hash((seed, turn)) & 0x7FFFFFFF, between)
            (reply,) = self._ask(request, first=turn % len(self._builders))
            if not isinstance(reply, Done):
                return error_of(reply)
            test.add(reply.samples_s, reply.rival_s)
            if test.decided:
                break
        return test

    def _build(self, *wanted: tuple[str, bool]) -> list[int] | MeasureError:
        """The keys under which both processes hold traces, compiled where they were not; or why not."""
        keys = [self._keys.setdefault(each, len(self._keys)) for each in wanted]
        if all(key in builder.built for builder in self._builders for key in keys):
            return keys
        with self._turns.compiling(), self._profile.span("build"):
            for builder in self._builders:
                if not builder.process.alive:
                    self._family.restore(builder)
            orders = keys, keys[::-1]
            for turn in zip(*orders, strict=True):
                missing = [(b, k) for b, k in zip(self._builders, turn, strict=True) if k not in b.built]
                for builder, key in missing:
                    builder.process.send(Build(key, wanted[keys.index(key)][0]))
                limit_s = self._limits.build_s
                replies = [b.process.receive(limit_s, ErrorKind.BUILD_TIMEOUT) for b, _ in missing]
                for (builder, key), reply in zip(missing, replies, strict=True):
                    if not isinstance(reply, Done):
                        return error_of(reply)
                    builder.built[key] = reply.elapsed_s
        return keys

    def _ask(self, *requests: Check | Pairs, first: int = 0) -> list[Reply]:
        """What new copies of the processes answer, all at once, from the ``first`` process on."""
        builders = self._builders[first : first + len(requests)]
        try:
            with self._turns.timing(), self._profile.span("run"):
                runners = [self._family.runner(b) for b in builders]
                for runner, request in zip(runners, requests, strict=True):
                    runner.send(request)
                return [runner.receive(self._limits.check_s) for runner in runners]
        except WorkersFailed as error:
            return [MeasureError(ErrorKind.CRASH, str(error))] * len(requests)
        finally:
            for builder in builders:
                builder.end_runner()
