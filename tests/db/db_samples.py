"""Small values to store."""

from collections.abc import Sequence
from datetime import UTC, datetime

from db.store import Store
from db.values import Checkpoint, CheckpointKind, RunSpec
from search.problem import (
    Candidate,
    Conditions,
    ErrorKind,
    Hardware,
    MeasureError,
    Measurement,
    Task,
    TensorSpec,
    Verification,
    Workload,
    digest,
)

HARDWARE = Hardware("Test CPU", 4, {"avx512": True, "l2": 1 << 20}, {"peak_gflops": 99.5})
HERE = Conditions(HARDWARE, '{"kind":"llvm"}', 4, {"tvm": "0.27"})
MOMENT = datetime(2025, 1, 2, 3, 4, 5, 678901, UTC)


def workload(number: int = 0) -> Workload:
    args = (TensorSpec((number, 8), "float32"), TensorSpec((8,), "float16"), TensorSpec((), "int64"))
    return Workload(
        digest(["workload", number]), f"add{number}", args, 1, 1e9 + 0.5, 1 << 40, '{"é": "\\u0000"}'
    )


def candidate(number: int = 0, of: Workload | None = None, space: str = "tir-1") -> Candidate:
    return Candidate((of or workload()).hash, space, (number, (1, 2, 4)), f'["trace", {number}]')


def timed(candidate: Candidate, *samples_s: float) -> Measurement:
    return Measurement(candidate, samples_s, None, 0.25, MOMENT)


def failed(
    candidate: Candidate, kind: ErrorKind = ErrorKind.CRASH, text: str = "Segmentation fault"
) -> Measurement:
    return Measurement(candidate, (), MeasureError(kind, text), 0.5, MOMENT)


def verified(candidate: Candidate, correct: bool = True) -> Verification:
    return Verification(candidate, correct, 1e-7, 1e-5, (2.0, 2.1), (1.0, 1.1), True, (0.9, 0.8, 1.0), "fine")


def add_model(store: Store, workloads: Sequence[Workload] = (), hash: str = "ab" * 32) -> RunSpec:
    """Adds a model of these workloads, and says how to run it."""
    tasks = [Task(f"fused_{w.name}", w, 1 + i) for i, w in enumerate(workloads or [workload()])]
    store.add_model(hash, "tiny", "tiny.onnx", tasks)
    return RunSpec(hash, HERE, 7, {"trials": 64})


def checkpoint(
    name: str = "lstm-1", kind: CheckpointKind = CheckpointKind.LSTM, is_default: bool = False
) -> Checkpoint:
    data = {"fingerprint": "12ab", "measurements": 3, "workloads": 1, "devices": 1}
    settings = {"layers": 2, "split": "workload", "seed": 7}
    return Checkpoint(
        name, kind, f"/models/{name}.pt", settings, data, {"tau": 0.5}, "1", "0.1.0", MOMENT, is_default
    )
