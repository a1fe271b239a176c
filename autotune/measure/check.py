"""When two outputs are equal: inputs that expose errors, the error, and how much of it rounding explains.

A sum of ``n`` terms in floating point differs from the exact one by about ``u * sqrt(n)`` times the
magnitude of its terms, where ``u`` is the unit roundoff (Higham, Accuracy and Stability of Numerical
Algorithms, section 4.2; the certain bound is ``n * u``, which is far too wide to catch wrong code). Both the
candidate and the reference have such an error. We allow ``SLACK * u * sqrt(n)`` of the reference's largest
magnitude: what a kernel that computes something else exceeds by orders of magnitude.

Where the largest output is far smaller than the terms behind it - a sum of millions, clipped to 6 - that is
too strict. So a verification also measures how much the reference's output moves when its inputs move by one
unit roundoff, and allows for that much instead of ``u`` where it is more.
"""

import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from search.problem import TensorSpec

SLACK = 16.0

Array = NDArray[Any]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype for TVM's name, ``bfloat16`` and the 8-bit floats included."""
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or hasattr(ml_dtypes, dtype.name)


def tolerance(dtype: str, reduction: int, sensitivity: float = 0.0) -> float:
    """Largest error, relative to the reference's largest magnitude, that rounding explains.

    Args:
        dtype: Of the output; integers and booleans must be equal.
        reduction: Length of the longest sum behind an element.
        sensitivity: Relative error of the output when inputs are off by one unit roundoff.
    """
    if not _is_float(numpy_dtype(dtype)):
        return 0.0
    return SLACK * max(_roundoff(numpy_dtype(dtype)), sensitivity) * math.sqrt(max(reduction, 1))


def _roundoff(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).eps) / 2


def nudge(array: Array, rng: np.random.Generator) -> Array:
    """The array with each element one unit in the last place up or down; integers stay as they are."""
    if not _is_float(array.dtype):
        return array
    step = 2 * _roundoff(array.dtype)
    return (array * (1 + step * rng.choice([-1, 1], array.shape))).astype(array.dtype)


def relative_error(actual: Array, reference: Array) -> float:
    """Largest difference over the largest finite magnitude of ``reference``.

    Infinite where NaN or infinity stands in one of them only, or with another sign.
    """
    a, r = (np.asarray(x, dtype=np.float64) for x in (actual, reference))
    finite = np.isfinite(r)
    if not np.array_equal(a[~finite], r[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return math.inf
    if not finite.any():
        return 0.0
    scale = float(np.abs(r[finite]).max()) or 1.0
    return float(np.abs(a[finite] - r[finite]).max()) / scale


INPUT_KINDS = ("normal", "wide", "constant")


def make_input(spec: TensorSpec, kind: str, rng: np.random.Generator) -> Array:
    """Random values that expose wrong answers.

    ``normal``: both signs, about one. ``wide``: both signs, magnitudes from 1e-3 to 1e3, so that an element
    read from the wrong place stands out. ``constant``: one value everywhere, so that a term added twice or
    never stands out from rounding. Integers are 0 and 1: they may be indices.
    """
    dtype = numpy_dtype(spec.dtype)
    if not _is_float(dtype):
        return rng.integers(0, 2, spec.shape).astype(dtype)
    if kind == "constant":
        return np.full(spec.shape, 0.5).astype(dtype)
    values = rng.standard_normal(spec.shape, dtype=np.float32)
    if kind == "wide":
        values *= 10.0 ** rng.uniform(-3, 3, spec.shape).astype(np.float32)
    return values.astype(dtype)


def poisoned_output(spec: TensorSpec) -> Array:
    """A buffer in which a place that was never written shows: NaN, or the dtype's largest value."""
    dtype = numpy_dtype(spec.dtype)
    if _is_float(dtype):
        return np.full(spec.shape, np.nan, dtype=dtype)
    return np.full(spec.shape, True if dtype.kind == "b" else np.iinfo(dtype).max, dtype=dtype)
