"""The CPU's own counters, through Linux's ``perf_event_open``."""

import ctypes
import errno
import os
import platform
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.system import ROOT, read

CYCLES = 0, 0  # PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES
TASK_CLOCK_NS = 1, 1  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK: needs no counter in the CPU

_SYSCALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_PARANOID = Path("proc/sys/kernel/perf_event_paranoid")
_USER_ONLY = 1 << 5 | 1 << 6  # exclude_kernel, exclude_hv: what people without privileges may count
_ATTRIBUTES = struct.Struct("IIQQQQQIIQ")  # perf_event_attr of its first version


class Counter:
    """Counts an event of the calling thread, outside of the kernel, while its context is open."""

    def __init__(self, event: tuple[int, int] = CYCLES) -> None:
        """Opens it.

        Raises:
            OSError: The kernel or the CPU does not count it, or not for us.
        """
        kind, config = event
        number = _SYSCALLS.get(platform.machine())
        if sys.platform != "linux" or number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, config, 0, 0, 0, _USER_ONLY, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        this_thread, any_cpu, no_group, no_flags = (ctypes.c_long(n) for n in (0, -1, -1, 0))
        self._file: int = libc.syscall(number, attributes, this_thread, any_cpu, no_group, no_flags)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def read(self) -> int:
        """How often the event happened since the counter was opened."""
        return int.from_bytes(os.read(self._file, 8), sys.byteorder)


def counters_available(root: Path = ROOT) -> tuple[bool, str]:
    """Whether this process may count the CPU's cycles, and if not, why not; by trying."""
    try:
        with Counter(CYCLES):
            return True, ""
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            level = read(root / _PARANOID)
            return False, f"the kernel refuses it (perf_event_paranoid is {level or 'unknown'})"
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return False, "the CPU shows no counters, as in most virtual machines"
        return False, f"the kernel has no perf_event_open ({error.strerror})"


def seconds_per_cycle(run: Callable[[], None]) -> float:
    """The meter of the clock: seconds that a cycle of the calling thread's core takes during ``run``.

    Time in which the thread does not run makes it too high, so the smallest of many is the true one.

    Raises:
        OSError: Cycles are not counted here.
    """
    with Counter(CYCLES) as counter:
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) / counter.read()
