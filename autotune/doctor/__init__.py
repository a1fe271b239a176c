"""What would spoil measurements on this machine, and what to do about it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from autotune.doctor import compiler, limits, load, processor, room, steadiness
from autotune.doctor.finding import Finding, State
from autotune.hardware import allowed_cpus, usable_cpus
from autotune.system import ROOT

__all__ = ["Finding", "State", "examine"]


def examine(root: Path = ROOT, tell: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Looks at all of it, in five seconds plus what importing TVM takes.

    Other load is looked at before we make some ourselves.

    Args:
        tell: Is told what is being looked at.
    """
    used = usable_cpus(root)
    allowed = allowed_cpus() or frozenset(used)
    tell("other load")
    yield from load.findings(root)
    tell("the machine")
    yield from processor.findings(allowed, root)
    yield from limits.findings(allowed, len(used), root)
    yield from room.findings(root)
    tell("the compiler")
    yield from compiler.findings(len(used), root)
    tell("how steady a kernel runs")
    yield from steadiness.findings(used, root)
