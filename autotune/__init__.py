"""ML-driven autotuning of tensor programs: from a model to verified, faster kernels.

``autotune.tune``, ``compile``, ``load`` and ``extract_tasks`` are the Python API, loaded on first use, so
that ``import autotune`` is cheap.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.api import compile, extract_tasks, tune
    from autotune.artifact import CompiledModel, load

__all__ = ["CompiledModel", "compile", "extract_tasks", "load", "tune"]

_HOMES = {
    "tune": "autotune.api",
    "compile": "autotune.api",
    "extract_tasks": "autotune.api",
    "load": "autotune.artifact",
    "CompiledModel": "autotune.artifact",
}


def _check_neighbours() -> None:
    """``search``, ``costmodels`` and ``db`` are common names: another package of that name hides ours."""
    from importlib.util import find_spec

    home = Path(__file__).resolve().parent.parent
    for name in ("search", "costmodels", "db"):
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            raise ImportError(
                f"autotune needs its own package {name!r} from {home / name}, but Python finds {origin}; "
                "run from another folder or remove the other package from sys.path"
            )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autotune' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


_check_neighbours()
