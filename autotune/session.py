"""What holds for a whole command: the database, the target, and the conditions of measuring."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from autotune.errors import BadInput
from autotune.hardware import describe_hardware, usable_cores
from autotune.target import canonical, resolve_target
from db.store import Store
from search.problem import Conditions

if TYPE_CHECKING:
    from tvm.target import Target

DISTRIBUTION = "autotune-tensor"
LATENCIES = ("fork_us",)
"""Probes that are better if smaller."""


@dataclass(frozen=True)
class Session:
    """An open database and the conditions under which its records apply here."""

    store: Store
    target: "Target"
    conditions: Conditions


def own_version() -> str:
    """Version of this program."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+source"


def software_versions() -> dict[str, str]:
    """What may influence a measurement, by package."""
    packages = ("apache-tvm", "apache-tvm-ffi", "numpy", "scikit-learn")
    return {"autotune": own_version(), "python": platform.python_version()} | {
        p: version(p) for p in packages
    }


def check_threads(threads: int | None) -> int:
    """The threads of a kernel: those given, or one for each core that this process may use.

    Raises:
        BadInput: More than there are cores, or none.
    """
    cores = usable_cores()
    if threads is not None and not 1 <= threads <= cores:
        raise BadInput(f"--threads {threads}: this process may use {cores} cores; give 1 to {cores}")
    return threads or cores


def best_of(fresh: Mapping[str, float], stored: Mapping[str, float]) -> dict[str, float]:
    """Probes of the same device, each from when it was quieter: other load can only make them worse."""
    better = {name: min if name in LATENCIES else max for name in {*fresh, *stored}}
    return {n: pick(p[n] for p in (fresh, stored) if n in p) for n, pick in better.items()}


@contextmanager
def open_session(
    db: str | None, target: str | None, threads: int | None, probe: bool = True, create: bool = True
) -> Iterator[Session]:
    """Opens the database and describes this machine.

    Args:
        db: URL or path; see ``db.engine.resolve_url``.
        target: See ``autotune.target.resolve_target``.
        threads: Threads of a kernel; None for all cores that this process may use.
        probe: Measure what the hardware can do, five seconds.
        create: Make the database where there is none.
    """
    threads = check_threads(threads)
    resolved = resolve_target(target, threads)
    with Store.open(db, create=create) as store:
        hardware = describe_hardware(probe)
        hardware = replace(hardware, probes=best_of(hardware.probes, store.probes(hardware.fingerprint)))
        conditions = Conditions(hardware, canonical(resolved), threads, software_versions())
        yield Session(store, resolved, conditions)
