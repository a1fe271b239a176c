"""Runs a compiled model in a process of its own: its outputs for given inputs, and how long it takes.

Needs TVM and NumPy only, as a user's program would.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autotune.errors import VerificationFailed
from autotune.measure.turns import alone

WARM_UP = 3
RUNS = 30
LIMIT_S = 10.0  # of timing; a slow model is run less often, at least three times


def run_library(
    library: Path, inputs: Sequence[NDArray[Any]], threads: int
) -> tuple[list[NDArray[Any]], tuple[float, ...]]:
    """Outputs of a library for ``inputs``, and seconds of single runs, warm; tuners wait meanwhile.

    Raises:
        VerificationFailed: The process crashed.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        given, written = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(given, *inputs)
        with alone():
            result = subprocess.run(
                [sys.executable, "-c", _SCRIPT, str(library), str(given), str(written)],
                env={**os.environ, "TVM_NUM_THREADS": str(threads)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        if result.returncode:
            said = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
            raise VerificationFailed(f"the compiled model crashed when run: {said[-1][:300]}")
        with np.load(written) as file:
            outputs = [file[name] for name in file.files]
        return outputs, tuple(json.loads(result.stdout.splitlines()[-1]))


_SCRIPT = f"""
import json, sys, time
sys.modules["torch"] = None  # tvm_ffi would import it
import numpy as np
import tvm
from tvm import relax

library, given, written = sys.argv[1:]
main = relax.VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())["main"]
with np.load(given) as file:
    inputs = [tvm.runtime.tensor(file[name]) for name in file.files]

def flatten(result):
    return [result] if hasattr(result, "numpy") else [t for part in result for t in flatten(part)]

np.savez(written, *(t.numpy() for t in flatten(main(*inputs))))
for _ in range({WARM_UP}):
    main(*inputs)
samples, begun = [], time.perf_counter()
while len(samples) < 3 or (len(samples) < {RUNS} and time.perf_counter() - begun < {LIMIT_S}):
    started = time.perf_counter()
    main(*inputs)
    samples.append(time.perf_counter() - started)
print(json.dumps(samples))
"""
