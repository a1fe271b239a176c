import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autotune.measure.check import (
    INPUT_KINDS,
    Array,
    is_float,
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


SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -1.5, 1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan])


@given(hnp.arrays(np.float32, (4,), elements=SPECIAL), hnp.arrays(np.float32, (4,), elements=SPECIAL))
def test_error_is_what_its_definition_says(actual: Array, reference: Array) -> None:
    """In either precision, with and without NaN, infinity and differences that overflow."""
    pairs = [(float(a), float(r)) for a, r in zip(actual, reference, strict=True)]
    finite = [(a, r) for a, r in pairs if np.isfinite(r)]
    scale = max((abs(r) for _, r in finite), default=1.0) or 1.0
    expected = max((abs(a - r) / scale if np.isfinite(a) else np.inf for a, r in finite), default=0.0)
    if not all(a == r or (np.isnan(a) and np.isnan(r)) for a, r in pairs if not np.isfinite(r)):
        expected = np.inf
    assert relative_error(actual, reference) == pytest.approx(expected, rel=1e-6)
    assert relative_error(actual, reference.astype(np.float64)) == pytest.approx(expected, rel=1e-12)


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


@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_inputs_are_finite_and_of_their_dtype(dtype: str, kind: str) -> None:
    made = make_input(TensorSpec((40, 50), dtype), kind, np.random.default_rng(0))
    assert made.dtype.name == dtype
    assert np.isfinite(made.astype(np.float64)).all()
    assert np.abs(made.astype(np.float64)).max() > 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_denormal_inputs_are_denormal_and_normal(dtype: str) -> None:
    made = make_input(TensorSpec((8000,), dtype), "denormal", np.random.default_rng(0)).astype(np.float64)
    tiny = float(ml_dtypes.finfo(numpy_dtype(dtype)).smallest_normal)
    assert 200 < ((made != 0) & (np.abs(made) < tiny)).sum() < 500
    assert 7400 < (np.abs(made) > 100 * tiny).sum() < 7600


def test_flushed_denormals_only_show_where_they_become_garbage() -> None:
    rng = np.random.default_rng(0)
    a, b = (make_input(TensorSpec((50, 100), "float32"), "denormal", rng) for _ in range(2))
    flushed = np.where(np.abs(a) < 2e-38, np.float32(0), a)
    exact = np.einsum("ij,ij->i", a.astype(np.float64), b.astype(np.float64))
    assert relative_error(np.einsum("ij,ij->i", flushed, b), exact) <= tolerance("float32", 100)
    with np.errstate(invalid="ignore"):
        assert relative_error(flushed / flushed, np.ones((50, 100))) == np.inf


@given(hnp.array_shapes(max_dims=4, max_side=6))
def test_edges_are_the_last_elements(shape: tuple[int, ...]) -> None:
    edge, normal = (
        make_input(TensorSpec(shape, "float32"), k, np.random.default_rng(0)) for k in ("edge", "normal")
    )
    inside = sum(i < n - 1 for i, n in zip(np.indices(shape), shape, strict=True))
    np.testing.assert_array_equal(edge, normal / 32.0**inside)


def test_a_missing_edge_shows_in_half_precision() -> None:
    """Where the tolerance is too wide to miss a term of the kind ``normal``."""
    found = {}
    for kind in ("normal", "edge"):
        rng = np.random.default_rng(0)
        a, b = (make_input(TensorSpec((9, 1001), "float16"), kind, rng).astype(np.float64) for _ in range(2))
        found[kind] = relative_error(a[:, :-1] @ b[:, :-1].T, a @ b.T)
    assert found["normal"] < tolerance("float16", 1001) < found["edge"]


def test_integers_of_8_bits_take_all_values_and_indices_stay_small() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("int8", "uint8"):
        made = make_input(TensorSpec((10000,), dtype), "normal", rng)
        assert (made.min(), made.max()) == (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for dtype in ("int16", "int32", "int64", "bool"):
        assert set(make_input(TensorSpec((100,), dtype), "wide", rng).tolist()) == {0, 1}


def test_what_rounds() -> None:
    assert all(is_float(d) for d in ("float64", "float32", "bfloat16", "float8_e4m3fn"))
    assert not any(is_float(d) for d in ("int8", "int4", "uint64", "bool"))
