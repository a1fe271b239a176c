"""Which cores TVM's threads run on."""

import os
import sys
from collections.abc import Sequence

_ONE_CORE_PER_THREAD = -2  # ThreadGroup::AffinityMode of TVM's runtime


def bind(cpus: Sequence[int]) -> None:
    """Gives the calling thread a pool of one thread for each CPU, itself being the first.

    To be called before the thread runs its first kernel, when the size of its pool is fixed (by default half
    of the logical CPUs). The calling thread works too and is bound like the others: left free, it may share
    a core with one of them all along.
    """
    import tvm

    configure = tvm.get_global_func("runtime.config_threadpool")
    configure(_ONE_CORE_PER_THREAD, len(cpus), [str(cpu) for cpu in cpus])
    if sys.platform == "linux":
        os.sched_setaffinity(0, cpus[:1])


def unbind(cpus: Sequence[int]) -> None:
    """Lets the calling thread run on any of the CPUs: for what is not timed, side by side with others."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, cpus)
