"""From a lowered model and the traces of its winners to a shared library."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.relax.backend.cpu_generic import pipeline
from tvm.target import Target

from autotune.errors import LinkFailed
from autotune.frontends.graph import Model
from search.compiler import written_out
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace
from search.stack import PIPELINE


def compile_model(model: Model, traces: Mapping[str, str], target: Target) -> Any:
    """Compiles a model with the given schedules.

    Args:
        traces: Trace of the winner by workload hash; a kernel without one keeps its plain loops.

    Returns:
        TVM's executable, which ``relax.VirtualMachine`` runs and ``write_library`` writes.
    """
    scheduled = {t.workload.hash: _schedule(t.workload, traces) for t in model.tasks}
    functions = dict(model.module.functions.items())
    for variable in model.module.functions:
        hash_ = model.functions.get(variable.name_hint)
        if hash_ is not None:
            functions[variable] = scheduled[hash_].with_attr("global_symbol", variable.name_hint)
    lowering = tvm.transform.Sequential(
        [
            *pipeline.dataflow_lower_passes(target),
            *pipeline.finalize_passes(target),
        ]
    )
    return relax.build(tvm.IRModule(functions), target, relax_pipeline=lowering, tir_pipeline=PIPELINE)


def _schedule(workload: Any, traces: Mapping[str, str]) -> Any:
    module = module_of(workload)
    trace = traces.get(workload.hash)
    return written_out(apply_trace(module, trace) if trace else module)["main"]


def write_library(executable: Any, path: Path) -> None:
    """Links an executable, its constants included, into a shared library; all of it or nothing.

    Raises:
        LinkFailed: No linker was found, or it failed.
    """
    linker = find_linker()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name

        def link(output: str, objects: list[str], **_: Any) -> None:
            command = [*linker, "-shared", "-fPIC", "-o", output, *objects]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                said = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
                raise LinkFailed(f"{linker[0]} cannot link {path}: {_cause(said)[:300]}")

        executable.export_library(str(draft), fcompile=link, workspace_dir=folder)
        draft.replace(path)


def _cause(said: list[str]) -> str:
    """The linker's own line; the last one is mostly the compiler's, that the linker failed."""
    return next((line for line in said if "ld:" in line), said[-1])


def find_linker() -> list[str]:
    """A C compiler's command: this machine's own, or the one in the ``ziglang`` package.

    Raises:
        LinkFailed: There is none.
    """
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise LinkFailed(
        "no C compiler (cc, gcc or clang) to link the artifact with; install one, "
        "or run: pip install ziglang. What was measured is in the database."
    )
