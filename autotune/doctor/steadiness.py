"""How steady a fixed kernel runs, which sums up all that spoils measurements, named or not."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from autotune.doctor.finding import Finding, judged
from autotune.doctor.load import steal, usage
from autotune.hardware import extensions
from autotune.system import ROOT, cpu_info

_NOISE_S = 1.0  # a thousand runs, of which p95 leaves fifty: enough to be steady itself
_SPREAD = 1.05
"""Of p95 over the median, and of the median over the fastest. The best candidates of a task lie within a few
percent of each other: where every twentieth time, or every second, is off by more, a ranking by a handful of
times is luck. The second figure is for virtual machines, whose cores run at half their speed for seconds
while a neighbour works on the other hardware thread."""

_SCALING = 0.75
"""Of what the cores together do, over as many times what one does. Halfway between one core shared by two
threads (0.5) and cores of their own; clocks that sink when all cores work keep it above 0.8."""


def findings(cpus: Sequence[int], root: Path = ROOT) -> Iterator[Finding]:
    """What is found by running multiply-adds on these CPUs, one of each core, for 1.3 seconds."""
    from autotune.probes import peak
    from autotune.probes.kernels import of_floats
    from autotune.probes.pinned import samples

    isa = extensions(cpu_info())
    before = usage(root)
    module, batch, _ = peak(of_floats(32, isa), cpus, isa)
    times_s = samples(module, [batch], cpus, _NOISE_S)
    yield noise(times_s)
    yield steal(before, usage(root))
    module, batch, _ = peak(of_floats(32, isa), cpus[:1], isa)
    yield scaling(min(samples(module, [batch], cpus[:1])), min(times_s), len(cpus))


def noise(times_s: Collection[float]) -> Finding:
    """Whether the runs of a kernel that does the same each time take the same time."""
    ranked = sorted(times_s)
    middle, late = ranked[len(ranked) // 2], ranked[len(ranked) * 95 // 100]
    said = (
        f"{len(ranked)} runs: fastest {ranked[0] * 1e3:.3f} ms, median {middle / ranked[0]:.3f} times that, "
        f"p95 {late / middle:.3f} times the median"
    )
    advice = "see the warnings of the others; if there is none, ask for a quieter machine"
    return judged("noise", max(late / middle, middle / ranked[0]) > _SPREAD, said, advice)


def scaling(one_s: float, all_s: float, cores: int) -> Finding:
    """Whether the cores do together what each does alone.

    Args:
        one_s: Of the kernel on one core.
        all_s: Of the kernel that does as much on each core.
    """
    share = one_s / all_s
    said = f"{cores} cores do {share * cores:.2f} times what one does"
    fewer = max(1, round(share * cores))
    advice = f"without other load: cores are shared inside or outside; try --threads {fewer}"
    return judged("scaling", share < _SCALING, said, advice)
