"""Products with padding are left out where tiles are of whole or half lines, and nothing else is."""

import math

import numpy as np
import operators as op
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from operators import Operator, Tail, run

from autotune.measure.check import relative_error, tolerance
from autotune.target import host_target
from search import edges
from search.space import enumerate_drafts
from search.spaces.contraction import ContractionSpace, analysed
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace
from search.vectors import Vectors

TARGET = host_target(2)
LANES = Vectors.of(TARGET, "float32").lanes


def traces(space: ContractionSpace, at_most: int = 12) -> list[str]:
    """Some of those that leave padding out."""
    drafts = list(enumerate_drafts(space))
    some = drafts[:: max(1, len(drafts) // (3 * at_most))]
    realized = (space.realize(d, np.random.default_rng(0)).trace for d in some)
    return [trace for trace in realized if edges.MARK in trace][:at_most]


def image(
    height: int, width: int, size: int = 3, stride: int = 1, dilation: int = 1, padding: int = 1,
    batch: int = 1,
) -> Operator:  # fmt: skip
    tail = Tail(bias=True, residual=True)
    return op.convolution(batch, height, width, 3, 1, LANES, size, stride, dilation, padding, tail)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 14), st.integers(2, 14), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2),
    st.integers(1, 2), st.integers(1, 2), st.data(),
)  # fmt: skip
def test_what_is_left_makes_the_same_sums(
    height: int,
    width: int,
    size: int,
    stride: int,
    dilation: int,
    padding: int,
    batch: int,
    data: st.DataObject,
) -> None:
    assume(dilation * (size - 1) < min(height, width) + 2 * padding)
    operator = image(height, width, size, stride, dilation, padding, batch)
    found = traces(ContractionSpace(operator.workload, TARGET))
    assume(found)
    trace = data.draw(st.sampled_from(found))
    inputs = operator.inputs()
    actual = run(apply_trace(module_of(operator.workload), trace), operator.workload.args[-1], inputs)
    expected = operator.expected(*(x.astype(np.float64) for x in inputs))
    assert relative_error(actual, expected) <= tolerance("float32", operator.workload.reduction)


@pytest.mark.parametrize(
    "kernel, within",
    [
        (image(7, 7), (19 * 19) / (21 * 21)),
        (image(14, 14, stride=2), (20 * 20) / (21 * 21)),
        (image(13, 9, size=5, padding=2), (59 * 39) / (65 * 45)),
        (image(9, 9, padding=0), 1.0),
        (op.convolution_of_bytes(7, 7), 1.0),  # read as other numbers than were filled in
        (op.depthwise(7, 7), 1.0),  # the window's columns are the innermost axis
    ],
)  # fmt: skip
def test_the_share_of_products_with_padding(kernel: Operator, within: float) -> None:
    assert math.isclose(analysed(kernel.workload).padded, 1 - within, abs_tol=1e-12)


def test_padding_is_not_computed_with() -> None:
    """An infinite weight times zero would be no number."""
    kernel = image(7, 7)
    x, w, *more = kernel.inputs()
    w[:, 0, 0] = np.inf  # what all but the first line and column of the output take
    found = traces(ContractionSpace(kernel.workload, TARGET), 3)
    assert found
    for trace in found:
        y = run(apply_trace(module_of(kernel.workload), trace), kernel.workload.args[-1], [x, w, *more])
        assert np.isfinite(y[:, 0]).all()
        assert np.isfinite(y[:, :, 0]).all()
        assert not np.isfinite(y[:, 1:, 1:]).any()


@pytest.mark.parametrize("kernel", [image(56, 56), image(9, 9, padding=0)])
def test_large_images_and_those_without_padding_are_as_before(kernel: Operator) -> None:
    assert not traces(ContractionSpace(kernel.workload, TARGET))
