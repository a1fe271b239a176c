"""The one place that imports TVM's scheduling parts, and works around what that import costs.

``TuneContext`` imports ``tvm.s_tir.tensor_intrin``, which loads the tensor instructions of every
platform. On Python 3.11 that takes one to four minutes: each of some hundred TVMScript definitions
calls ``inspect.stack()``, which scans all loaded modules. Only this platform's instructions are of use,
so an empty package is put in its place, and just the module that the platform needs is loaded (0.2 s).
"""

import importlib
import platform
import sys
import types
from pathlib import Path
from typing import Any

import tvm
import tvm.s_tir
from tvm import tirx
from tvm.s_tir.meta_schedule.schedule_rule import ParallelizeVectorizeUnroll
from tvm.s_tir.meta_schedule.space_generator import PostOrderApply
from tvm.s_tir.meta_schedule.tune_context import TuneContext
from tvm.target import Target
from tvm.tirx.build import split_host_device_mods

from search import ahead, amx, edges, halves, marks
from search.stack import PIPELINE

_PARALLELIZE = ParallelizeVectorizeUnroll(
    max_jobs_per_core=16, max_vectorize_extent=64, unroll_max_steps=[0, 16, 64], unroll_explicit=True
)
"""TVM's default for CPUs but for the last step, 512."""

_LEFT_OUT = {"ApplyCustomRule", "MultiLevelTilingWithIntrin"}

_MEANINGS: dict[str, marks.Meaning] = {
    ahead.MARK: ahead.fetching,
    amx.MARK: amx.configured,
    edges.MARK: edges.skipping,
    halves.MARK: halves.configured,
    halves.RESUMED: halves.resumed,
}

_PACKAGE = "tvm.s_tir.tensor_intrin"
_PLATFORM_MODULES = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm_cpu", "arm64": "arm_cpu"}


def load_tensor_intrinsics() -> None:
    """Registers this platform's tensor instructions (such as ``dot_16x4_vnni``), once a process."""
    if _PACKAGE in sys.modules:
        return
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(Path(tvm.s_tir.__file__).parent / "tensor_intrin")]
    sys.modules[_PACKAGE] = package
    module = _PLATFORM_MODULES.get(platform.machine())
    if module is not None:
        importlib.import_module(f"{_PACKAGE}.{module}")


def tune_context(module: tvm.IRModule, target: Target) -> TuneContext:
    """TVM's bundle of schedule rules and postprocessors for ``module`` on ``target``.

    Without the rule for hand-written schedules: a CPU has none, and it complains of each pooling. Without
    that for VNNI, whose instruction does not compile (``search.dots`` has one that does). And without TVM's
    largest choice of unrolling, 512 steps: half of the time went into compiling such candidates, and on
    random samples of several kernels none of the best was among them (docs/measuring.md).
    """
    load_tensor_intrinsics()
    generator = _context(module, target, "post-order-apply").space_generator
    rules = [_PARALLELIZE if type(r) is type(_PARALLELIZE) else r for r in generator.sch_rules]
    rules = [r for r in rules if type(r).__name__ not in _LEFT_OUT]
    own = PostOrderApply(
        sch_rules=rules, postprocs=list(generator.postprocs), mutator_probs=generator.mutator_probs
    )
    return _context(module, target, own)


def _context(module: tvm.IRModule, target: Target, generator: Any) -> TuneContext:
    return TuneContext(
        mod=module, target=target, space_generator=generator, search_strategy="evolutionary",
        rand_state=1, num_threads=1,
    )  # fmt: skip


def written_out(module: tvm.IRModule) -> tvm.IRModule:
    """A scheduled module with the instructions for which TVM has no primitive."""
    return marks.written_out(module, _MEANINGS)


def compile_kernel(module: tvm.IRModule, target: Target) -> Any:
    """Compiles a module's ``main`` into memory for whoever knows to pass the right arguments.

    As ``tvm.tirx.build`` does with our ``PIPELINE``, but without the checks of the arguments with their
    error texts: they are half of the code of a small kernel, and a third of what compiling it costs.
    """
    host = target.with_host(target)
    lower, finalize, _ = tirx.get_tir_pipeline(PIPELINE)
    lowered, _ = split_host_device_mods(lower(tirx.transform.BindTarget(host)(written_out(module))))
    bare = tirx.transform.SkipAssert()(finalize()(lowered))
    library = tvm.get_global_func(f"target.build.{target.kind.name}")(bare, target)
    return library["main"]  # taking it out is what makes LLVM compile it
