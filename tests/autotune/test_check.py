import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autotune.measure.check import (
    INPUT_KINDS,
    make_input,
    nudge,
    numpy_dtype,
    poisoned_output,
    relative_error,
    tolerance,
)
from search.problem import TensorSpec


@pytest.mark.parametrize("n", [16, 256, 4096])
@pytest.mark.parametrize("kind", INPUT_KINDS)
def test_rounding_passes_and_a_missing_term_does_not(n: int, kind: str) -> None:
    """Float32 dot products in another order are right; those that leave one term out are not."""
    rng = np.random.default_rng(0)
    a, b = (make_input(TensorSpec((200, n), "float32"), kind, rng) for _ in range(2))
    exact = np.einsum("ij,ij->i", a.astype(np.float64), b.astype(np.float64))
    backwards = np.cumsum((a * b)[:, ::-1], axis=1, dtype=np.float32)[:, -1]
    allowed = tolerance("float32", n)
    assert relative_error(backwards, exact) <= allowed
    assert relative_error(backwards - (a * b)[:, n // 2], exact) > allowed


def test_tolerance_by_hand() -> None:
    assert tolerance("float32", 100) == pytest.approx(16 * 2**-24 * 10)
    assert tolerance("int32", 100) == 0.0
    assert tolerance("float16", 100) > tolerance("float32", 100) > tolerance("float64", 100)
    assert tolerance("bfloat16", 1) > tolerance("float16", 1)


@given(hnp.arrays(np.float64, (5,), elements=st.floats(-1e6, 1e6)))
def test_nudging_is_by_one_place(array: np.ndarray) -> None:
    x = array.astype(np.float32)
    assert np.abs(nudge(x, np.random.default_rng(0)) - x).max() <= 2 * 2**-23 * np.abs(x).max()


@given(hnp.arrays(np.float64, (5,), elements=st.floats(-1e6, 1e6)))
def test_error_of_equal_arrays_is_zero(array: np.ndarray) -> None:
    assert relative_error(array, array) == 0.0


@pytest.mark.parametrize(
    ("actual", "reference"),
    [([np.nan, 1], [0, 1]), ([0, 1], [np.nan, 1]), ([np.inf, 1], [-np.inf, 1]), ([np.inf, 1], [0, 1])],
)
def test_nan_and_infinity_must_agree(actual: list[float], reference: list[float]) -> None:
    assert relative_error(np.array(actual), np.array(reference)) == np.inf


def test_agreeing_nan_and_infinity_are_no_error() -> None:
    same = np.array([np.nan, np.inf, -np.inf, 2.0])
    assert relative_error(same, same) == 0.0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int64", "bool", "uint8"])
def test_an_output_never_written_shows(dtype: str) -> None:
    spec = TensorSpec((4,), dtype)
    assert relative_error(poisoned_output(spec), np.zeros(4, numpy_dtype(dtype))) > tolerance(dtype, 1)


def test_inputs_have_both_signs_and_wide_magnitudes() -> None:
    rng = np.random.default_rng(0)
    wide = make_input(TensorSpec((1000,), "float32"), "wide", rng)
    assert (wide > 0).any()
    assert (wide < 0).any()
    assert np.abs(wide).max() / np.abs(wide).min() > 1e5
    assert set(make_input(TensorSpec((100,), "int64"), "normal", rng).tolist()) == {0, 1}
