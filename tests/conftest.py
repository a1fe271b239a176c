"""Two processes may run tests side by side (`make test`): no timing decides a test."""

import gc
import os
import tempfile
from pathlib import Path

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    folder = Path(tempfile.gettempdir()) / f"autotune-tests-{os.getuid()}-{worker}"
    folder.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)  # where the lock of `measure.turns` lies
    os.environ["TVM_THREAD_POOL_SPIN_COUNT"] = "0"  # threads that wait leave their core to the other process
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def pytest_collection_finish() -> None:
    """What was imported stays, so no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()
