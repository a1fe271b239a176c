"""The compiler and the linker."""

from collections.abc import Collection, Iterator
from pathlib import Path

from autotune.doctor.finding import Finding, judged
from autotune.hardware import extensions
from autotune.system import ROOT, cpu_info


def findings(threads: int, root: Path = ROOT) -> Iterator[Finding]:
    """What is found of the tools that make kernels."""
    from tvm.target import codegen

    from autotune.target import host_target

    target = host_target(threads)
    features = {str(name) for name in codegen.llvm_get_cpu_features(target)}
    yield instructions(str(target.attrs["mcpu"]), features, extensions(cpu_info(root)))
    yield linker()


def instructions(cpu: str, features: Collection[str], isa: Collection[str]) -> Finding:
    """Whether kernels may use all vector extensions of the CPU.

    Args:
        cpu: LLVM's name of the CPU that is compiled for.
        features: LLVM's names of the extensions that it is said to have.
        isa: LLVM's names of those that the kernel shows.
    """
    missing = [name for name in isa if name not in features]
    said = f"kernels for {cpu} use " + (f"no {', '.join(missing)}" if missing else "all vector extensions")
    more = ",".join(f'"+{name}"' for name in missing)
    advice = f'--target \'{{"kind":"llvm","mcpu":"{cpu}","mattr":[{more}]}}\''
    return judged("instructions", bool(missing), said, advice)


def linker() -> Finding:
    """Whether an artifact can be written."""
    from autotune.build import find_linker
    from autotune.errors import LinkFailed

    try:
        return judged("linker", False, " ".join(find_linker()), "")
    except LinkFailed:
        return judged("linker", True, "none: an artifact cannot be written", "pip install ziglang")
