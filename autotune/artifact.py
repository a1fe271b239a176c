"""What a user takes away: a folder with a shared library, its manifest and its report."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from autotune.errors import ArtifactError, BadInput
from autotune.manifest import REPORT_NAME, Manifest, TaskEntry
from autotune.target import lacking

_loaded: dict[Path, tuple[int, int]] = {}


class CompiledModel:
    """An artifact, loaded: call it with arrays, get arrays.

        >>> model = autotune.load("autotune-out/resnet18")   # doctest: +SKIP
        >>> logits, = model(image)                           # doctest: +SKIP

    Attributes:
        folder: Where it lies.
        manifest: All that is known of it.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        # TVM reads it when a thread runs its first kernel; its own default is half of the cores.
        os.environ.setdefault("TVM_NUM_THREADS", str(manifest.threads))
        self._main = relax.VirtualMachine(_load_library(folder / manifest.library), tvm.cpu())["main"]

    @property
    def tasks(self) -> tuple[TaskEntry, ...]:
        """The model's kernels, before and after."""
        return self.manifest.tasks

    @property
    def report(self) -> Path:
        """The report, a page for a browser."""
        return self.folder / REPORT_NAME

    def __call__(self, *inputs: Any) -> list[NDArray[Any]]:
        """Runs the model.

        Args:
            inputs: NumPy arrays or CPU tensors, in the order and of the shapes and dtypes in the manifest.

        Returns:
            The outputs, always as a list.

        Raises:
            BadInput: An input is missing or does not fit.
        """
        expected = self.manifest.model.inputs
        if len(inputs) != len(expected):
            names = ", ".join(i.name for i in expected)
            raise BadInput(f"{len(inputs)} inputs given; the model takes {len(expected)}: {names}")
        arrays = [np.asarray(i, order="C") for i in inputs]
        for array, entry in zip(arrays, expected, strict=True):
            if array.shape != entry.shape or array.dtype != entry.dtype:
                raise BadInput(
                    f"input {entry.name} is {array.dtype} {list(array.shape)}; "
                    f"the model takes {entry.dtype} {list(entry.shape)}"
                )
        result = self._main(*(tvm.runtime.tensor(a) for a in arrays))
        return [t.numpy() for t in flatten(result)]

    def save(self, folder: str | Path) -> Path:
        """Copies the artifact into another folder, which is made."""
        target = Path(folder)
        shutil.copytree(self.folder, target, dirs_exist_ok=True)
        return target


def flatten(result: Any) -> list[Any]:
    """The tensors of a result of TVM's virtual machine, which may be one or nested."""
    return [result] if hasattr(result, "numpy") else [t for part in result for t in flatten(part)]


def load(path: str | Path) -> CompiledModel:
    """Loads an artifact.

    Args:
        path: The folder that ``autotune run`` or ``compile`` wrote, or the library in it.

    Raises:
        ArtifactError: It is not an artifact, or this machine cannot load it, or not run it.
    """
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    manifest = Manifest.read(folder)
    if names := lacking(manifest.target):  # else it would die of SIGILL
        raise ArtifactError(
            f"{folder} was compiled on {manifest.hardware.name}, and uses what this machine lacks: {names}.\n"
            "Compile it here, or there for a CPU that both have instructions of (--target)."
        )
    return CompiledModel(folder, manifest)


def _load_library(path: Path) -> Any:
    """Loads a library, from a copy where another one of its path is loaded: dlopen goes by the path."""
    try:
        status = path.stat()
        identity = status.st_ino, status.st_mtime_ns
        if _loaded.setdefault(path.resolve(), identity) == identity:
            return tvm.runtime.load_module(str(path))
        with tempfile.TemporaryDirectory() as folder:
            return tvm.runtime.load_module(shutil.copy(path, folder))
    except Exception as error:
        raise ArtifactError(f"{path} cannot be loaded: {str(error).strip().splitlines()[-1]}") from error
