"""Memory and disk: how much there is, and in what shape."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from autotune.cgroups import memory_limit_bytes
from autotune.doctor.finding import Finding, judged, unknown
from autotune.system import ROOT, read

_GIB = 1 << 30
_MEMORY = 2 * _GIB  # TVM, a model and its arrays, in the tuner and again in processes that build and run
_SWAP = _GIB // 10  # below it lie pages that nobody has asked for since boot
_DISK = _GIB  # an artifact takes as much as the model's constants, and the database keeps every measurement


def findings(root: Path = ROOT) -> Iterator[Finding]:
    """What is found of memory and disk."""
    yield from memory(root)
    yield huge_pages(root)
    yield disk()


def memory(root: Path = ROOT) -> Iterator[Finding]:
    """Whether there is enough of it, and none of it on a disk."""
    lines = (line.split() for line in read(root / "proc/meminfo").splitlines())
    sizes = {
        words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[1:] and words[1].isdigit()
    }
    if "MemAvailable" not in sizes:
        yield unknown("memory", "the system does not tell how much is free")
        return
    limit = memory_limit_bytes(root)
    free = min(sizes["MemAvailable"], limit)
    said = f"{free / _GIB:.1f} GiB free" + (f", at a limit of {limit / _GIB:.1f}" if limit < math.inf else "")
    yield judged("memory", free < _MEMORY, said, "end other programs, or raise the limit (docker run -m 8g)")
    used = sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0)
    said = f"{used / _GIB:.1f} GiB in use" if used else "not in use"
    yield judged("swap", used > _SWAP, said, "sudo swapoff -a && sudo swapon -a")


def huge_pages(root: Path = ROOT) -> Finding:
    """Whether the kernel gives large pages unasked: to which arrays, is chance."""
    setting = read(root / "sys/kernel/mm/transparent_hugepage/enabled")
    _, _, chosen = setting.partition("[")
    chosen = chosen.partition("]")[0]
    if not chosen:
        return unknown("huge pages", "the kernel shows no setting")
    said = "always: which arrays get them changes from run to run" if chosen == "always" else chosen
    advice = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return judged("huge pages", chosen == "always", said, advice)


def disk(database: str | None = None) -> Finding:
    """Whether a database (see ``db.engine.resolve_url``) has room to grow."""
    from db.engine import resolve_url, sqlite_path
    from search.errors import AutotuneError

    try:
        file = sqlite_path(resolve_url(database))
    except AutotuneError as error:
        return judged("disk", True, str(error).splitlines()[0], "unset AUTOTUNE_DB, or correct it")
    if file is None:
        return unknown("disk", "the database is on a server")
    free = shutil.disk_usage(next(folder for folder in file.parents if folder.exists())).free
    said = f"{free / _GIB:.1f} GiB free for {file}"
    return judged("disk", free < _DISK, said, "free some, or take another place: export AUTOTUNE_DB=PATH")
