"""When two outputs are equal: inputs that expose errors, the error, and how much of it rounding explains.

The reference computes in double precision (``autotune.measure.reference``), so the whole error is the
candidate's. A sum of ``n`` terms in floating point differs from the exact one by about ``u * sqrt(n)`` times
the magnitude of its terms, where ``u`` is the unit roundoff (Higham, Accuracy and Stability of Numerical
Algorithms, section 4.2; the certain bound is ``n * u``, which is far too wide to catch wrong code). We allow
``SLACK * u * sqrt(n)`` of the reference's largest magnitude: what a kernel that computes something else
exceeds by orders of magnitude.

Where the largest output is far smaller than the terms behind it - a sum of millions, clipped to 6 - that is
too strict. So ``Reference.compare`` also measures how much the exact output moves when its inputs move by
one unit roundoff, and allows for that much instead of ``u`` where it is more.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from search.problem import TensorSpec

SLACK = 16.0
"""Errors of 1,500 runs of untuned and tuned kernels, from nine networks and all kinds of inputs, are at most
11 of what it multiplies (a square root of sums near zero), nearly all below 3.
"""

_RUNS, OFF = 3, 1e-6  # of a quantized model on inputs that are a little off

Array = NDArray[Any]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype for TVM's name, ``bfloat16`` and the 8-bit floats included."""
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def is_float(dtype: str) -> bool:
    """Whether a dtype of this name rounds."""
    return "float" in dtype


def tolerance(dtype: str, reduction: int, sensitivity: float = 0.0) -> float:
    """Largest error, relative to the reference's largest magnitude, that rounding explains.

    Args:
        dtype: Of the output; integers and booleans must be equal.
        reduction: Length of the longest sum behind an element.
        sensitivity: Relative error of the output when inputs are off by one unit roundoff.
    """
    if not is_float(dtype):
        return 0.0
    return SLACK * max(_roundoff(numpy_dtype(dtype)), sensitivity) * math.sqrt(max(reduction, 1))


def _roundoff(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).eps) / 2


def nudge(array: Array, rng: np.random.Generator, step: float | None = None) -> Array:
    """The array with each element a little up or down; integers stay as they are.

    Args:
        step: How much, relative to the element; None for one unit in the last place.
    """
    if not is_float(array.dtype.name):
        return array
    step = 2 * _roundoff(array.dtype) if step is None else step
    return (array * (1 + step * rng.choice([-1, 1], array.shape))).astype(array.dtype)


def relative_error(actual: Array, reference: Array) -> float:
    """Largest difference over the largest finite magnitude of ``reference``.

    Infinite where NaN or infinity stands in one of them only, or with another sign.
    """
    if not reference.size:
        return 0.0
    with np.errstate(all="ignore"):
        # Single precision will do where both are: the difference of neighbours is exact (Sterbenz).
        difference = np.subtract(actual, reference, dtype=np.result_type(actual, reference, np.float32))
    scale, error = _magnitude(reference), _magnitude(difference)
    if math.isfinite(scale) and math.isfinite(error):
        return error / (scale or 1.0)
    return _error_where_finite(actual.astype(np.float64), reference.astype(np.float64))


def _error_where_finite(actual: Array, reference: Array) -> float:
    finite = np.isfinite(reference)
    if not np.array_equal(actual[~finite], reference[~finite], equal_nan=True):
        return math.inf
    a, r = actual[finite], reference[finite]
    if not np.isfinite(a).all():
        return math.inf
    return _magnitude(a - r) / (_magnitude(r) or 1.0) if r.size else 0.0


def moved_by_steps(
    model: Callable[[Sequence[Array]], Sequence[Array]],
    inputs: Sequence[Array],
    expected: Sequence[Array],
    nudged: Callable[[int], Callable[[Sequence[Array]], Sequence[Array]]] | None = None,
) -> float:
    """How far a quantized model's output moves when a few values are rounded to the next byte instead.

    In a model quantized to bytes, sums added up in another order fall to the other side of a rounding here
    and there, and each moves what follows by a whole step. Inputs off by a millionth, as sums are, put a few
    values there; twice the most that three such runs move the output is what to allow.

    Args:
        model: The original.
        expected: Its outputs of ``inputs``.
        nudged: By a seed, the original with its constants off by a millionth: where inputs are whole numbers.
    """
    rng = np.random.default_rng(0)
    whole = not any(is_float(a.dtype.name) for a in inputs)
    moved = 0.0
    for seed in range(_RUNS):
        runs = nudged(seed) if nudged and whole else model
        outputs = runs([nudge(a, rng, OFF) for a in inputs])
        moved = max(moved, *(relative_error(o, e) for o, e in zip(outputs, expected, strict=True)))
    return 2 * moved


def badness(error: float, allowed: float) -> float:
    """An error as a multiple of what is allowed, which may be nothing."""
    return error / max(allowed, 1e-30)


def _magnitude(array: Array) -> float:
    """Largest absolute value, without a copy; NaN where there is one."""
    return float(max(array.max(), -float(array.min())))


INPUT_KINDS = ("normal", "wide", "constant", "denormal", "edge")

_DENORMAL = 1 / 16  # of all: processors take sixteen times as long over them
_INSIDE = 2.0**-5  # its square, times the root of a few thousand terms, is small


def make_input(spec: TensorSpec, kind: str, rng: np.random.Generator) -> Array:
    """Random values that expose wrong answers.

    - ``normal``: both signs, about one.
    - ``wide``: both signs, magnitudes from 1e-3 to 1e3 (less where the square of the square would overflow),
      so that an element read from the wrong place stands out.
    - ``constant``: one value everywhere, so that a term added twice or never stands out from rounding.
    - ``denormal``: one in sixteen, the last among them, lies below or just above the smallest normal number,
      the others are normal. Code that takes them for zero loses nothing that shows in a sum; code that then
      divides by zero, or mistakes their bits, shows as NaN, infinity or garbage.
    - ``edge``: 32 times smaller for every axis along which it is not the last element. So the last term of
      a sum is most of it, whichever axes are summed over, and an edge tile that is left out or computed
      twice stands out in half precision, too.

    Integers of 8 bits are data and take all values; wider ones may be indices, and are 0 and 1.
    """
    dtype = numpy_dtype(spec.dtype)
    if not is_float(dtype.name):
        return _integers(spec, dtype, rng)
    if kind == "constant":
        return np.full(spec.shape, 0.5).astype(dtype)
    limits = ml_dtypes.finfo(dtype)
    values = rng.standard_normal(spec.shape, np.float64 if dtype == np.float64 else np.float32)
    match kind:
        case "wide":
            decades = min(3.0, math.log10(float(limits.max)) / 4)
            values *= (10.0 ** rng.uniform(-decades, decades, spec.shape)).astype(values.dtype)
        case "denormal":
            tiny = rng.random(spec.shape) < _DENORMAL
            tiny.flat[-1:] = True
            tiny.flat[:1] = False  # so that a scalar is none
            values[tiny] *= float(limits.smallest_normal)
        case "edge":
            for axis in range(values.ndim):
                values[(slice(None),) * axis + (slice(-1),)] *= _INSIDE
    return values.astype(dtype)


def _integers(spec: TensorSpec, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max + 1, spec.shape).astype(dtype)
    return rng.integers(0, 2, spec.shape).astype(dtype)


def poisoned_output(spec: TensorSpec) -> Array:
    """A buffer in which a place that was never written shows: NaN, or the dtype's largest value."""
    dtype = numpy_dtype(spec.dtype)
    if is_float(dtype.name):
        return np.full(spec.shape, np.nan, dtype=dtype)
    return np.full(spec.shape, True if dtype.kind == "b" else np.iinfo(dtype).max, dtype=dtype)
