"""The contract of every space; a new one joins by a line in ``SPACES``."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import made_up
import numpy as np
import operators
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import TARGET, convolution, copy, matmul, softmax, workload
from made_up import differences

from search.errors import InvalidCandidate
from search.problem import Choice
from search.space import Space, enumerate_drafts, from_text, to_text
from search.spaces.contraction import ContractionSpace
from search.spaces.depthwise import DepthwiseSpace
from search.spaces.knobs import BadKnobs, KnobSpace
from search.spaces.loops import LoopSpace
from search.spaces.table import TableSpace
from search.spaces.tir import module_of
from search.spaces.trace import TraceSpace, apply_trace, factorizations

SPACES: dict[str, Callable[[], Space]] = {
    "matmul": lambda: TraceSpace(workload(matmul()), TARGET),
    "convolution": lambda: TraceSpace(workload(convolution()), TARGET),
    "softmax": lambda: TraceSpace(workload(softmax()), TARGET),  # places to compute at, nine sketches
    "copy": lambda: TraceSpace(workload(copy()), TARGET),  # nothing to decide
    "prime": lambda: TraceSpace(workload(matmul(13, 7, 1)), TARGET),
    "knobs": made_up.knobs,
    "narrow": made_up.narrow,
    "point": made_up.point,
    "huge": made_up.huge,
    "table": made_up.table,
    "tiles": made_up.tiles,
    "product template": lambda: ContractionSpace(operators.product().workload, TARGET),
    "convolution template": lambda: ContractionSpace(
        operators.convolution(tail=operators.Tail(residual=True, relu=True)).workload, TARGET
    ),
    "depthwise template": lambda: DepthwiseSpace(operators.depthwise(stride=2).workload, TARGET),
    "pooling template": lambda: LoopSpace(operators.max_pool().workload, TARGET),
    "softmax template": lambda: LoopSpace(operators.softmax().workload, TARGET),
}
TEMPLATES = tuple(name for name in SPACES if name.endswith("template"))
COUNTED = ("knobs", "narrow", "point", "table", "tiles", *TEMPLATES)


@pytest.fixture(scope="module", params=SPACES)
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_next_decision_leads_through_every_candidate(space: Space) -> None:
    for seed in range(5):
        candidate = space.realize(space.sample(rng(seed)), rng(seed))
        prefix: tuple[Choice, ...] = ()
        while (decision := space.next_decision(prefix)) is not None:
            taken = candidate.choices[len(prefix)]
            assert taken in decision.choices
            prefix = (*prefix, taken)
        assert prefix == candidate.choices


def test_every_decision_has_a_role(space: Space) -> None:
    for seed in range(5):
        choices = space.realize(space.sample(rng(seed)), rng(seed)).choices
        roles = space.roles(choices[0] if choices else None)
        assert len(roles) >= len(choices)
        for role, choice in zip(roles, choices, strict=False):
            assert role.kind
            if role.extent > 1:
                assert isinstance(choice, tuple)
                assert math.prod(choice) == role.extent
            if role.values:
                assert isinstance(choice, int)
                assert 0 <= choice < len(role.values)


def test_a_complete_candidate_is_realized_as_it_is(space: Space) -> None:
    candidate = space.realize(space.sample(rng()), rng())
    again = space.realize(candidate.choices, rng(99))
    assert again == candidate
    assert again.trace == candidate.trace
    assert again.hash == candidate.hash


def test_drafts_follow_from_the_generator(space: Space) -> None:
    assert [space.sample(rng(7)) for _ in range(3)] == [space.sample(rng(7)) for _ in range(3)]
    draft = space.sample(rng())
    assert space.mutate(draft, rng(3)) == space.mutate(draft, rng(3))


def test_variations_can_be_realized(space: Space) -> None:
    generator = rng(1)
    left, right = space.sample(generator), space.sample(generator)
    for _ in range(10):
        left = space.mutate(left, generator)
        try:
            space.realize(space.crossover(left, right, generator), generator)
        except InvalidCandidate as error:
            assert str(error)


@pytest.mark.parametrize("name", ["matmul", "convolution", "softmax", "copy", "prime", *TEMPLATES])
def test_a_trace_replays_without_the_space(name: str) -> None:
    space = SPACES[name]()
    candidate = space.realize(space.sample(rng(2)), rng(2))
    assert apply_trace(module_of(space.workload), candidate.trace) is not None


@pytest.mark.parametrize("draft", [(99,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), ("zero",)])
def test_nonsense_is_refused(space: Space, draft: tuple[Choice, ...]) -> None:
    with pytest.raises(InvalidCandidate):
        space.realize(draft, rng())


def test_neighbours_can_be_realized_and_differ_in_one_decision(space: Space) -> None:
    candidate = space.realize(space.sample(rng(4)), rng(4))
    found = space.neighbours(candidate.choices)
    assert len(set(found)) == len(found)
    for draft in found:
        assert differences(draft, candidate.choices) == 1
    for draft in found[:5]:
        with suppress(InvalidCandidate):  # which TVM's postprocessors may find it to be
            assert space.realize(draft, rng()).choices == draft


def test_what_is_adapted_to_its_own_space_stays_as_it_is(space: Space) -> None:
    candidate = space.realize(space.sample(rng(5)), rng(5))
    assert space.adapt(candidate.choices) == candidate.choices
    assert space.adapt((0,) * 40) is None


def test_a_draft_of_a_similar_kernel_fits_this_one() -> None:
    here, there = SPACES["matmul"](), TraceSpace(workload(matmul(64, 48, 16)), TARGET)
    adapted = [there.adapt(here.realize(here.sample(rng(s)), rng(s)).choices) for s in range(5)]
    assert all(a is not None and there.realize(a, rng()) for a in adapted)


@pytest.mark.parametrize("name", ["matmul", "convolution", "softmax"])
def test_a_trace_of_the_same_sketch_is_adopted(name: str) -> None:
    space = SPACES[name]()
    found = 0
    for seed in range(12):
        try:
            candidate = space.realize(space.sample(rng(seed)), rng(seed))
        except InvalidCandidate:
            continue
        adopted = space.adopt(candidate.trace)  # type: ignore[attr-defined]
        assert adopted in (candidate.choices, None)  # TVM drops instructions without effect from some
        found += adopted is not None
    assert found > 3


def test_a_trace_of_another_kernel_is_not_adopted() -> None:
    other = SPACES["softmax"]()
    candidate = other.realize(other.sample(rng(1)), rng(1))
    assert SPACES["matmul"]().adopt(candidate.trace) is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted_is_what_is_enumerated_and_sampled(name: str) -> None:
    space = SPACES[name]()
    rows = list(enumerate_drafts(space))
    assert space.count() == len(rows) == len(set(rows))
    for row in rows[:: max(1, len(rows) // 20)]:
        assert space.realize(row, rng()).choices == row
    assert {space.sample(rng(s)) for s in range(50)} <= set(rows)


@pytest.mark.parametrize("name", COUNTED)
def test_variations_in_counted_spaces_are_legal(name: str) -> None:
    space, generator = SPACES[name](), rng(6)
    rows = set(enumerate_drafts(space))
    for _ in range(50):
        left, right = space.sample(generator), space.sample(generator)
        assert space.mutate(left, generator) in rows
        assert space.crossover(left, right, generator) in rows
        assert set(space.neighbours(left)) <= rows


def test_neighbours_connect_a_space_without_constraints() -> None:
    """Coordinate descent can reach everything."""
    space = TableSpace(made_up.WORK, [(a, b) for a in range(4) for b in range(5)])
    reached, todo = {(0, 0)}, [(0, 0)]
    while todo:
        new = [d for d in space.neighbours(todo.pop()) if d not in reached]
        reached.update(new)
        todo += new
    assert len(reached) == 20


def test_sampling_is_uniform_whatever_the_constraints() -> None:
    space = SPACES["narrow"]()
    drawn = [space.sample(rng(s)) for s in range(200)]
    assert 60 < drawn.count(drawn[0]) < 140  # of two candidates; binomial, 5.6 standard deviations


def test_a_huge_space_is_counted_at_once() -> None:
    assert SPACES["huge"]().count() == 10**12


def test_an_empty_space_says_so() -> None:
    space = made_up.empty()
    assert space.count() == 0
    assert space.next_decision(()) is None
    with pytest.raises(InvalidCandidate, match="its constraints leave none"):
        space.sample(rng())


def test_a_knob_space_realizes_values() -> None:
    space = made_up.knobs()
    assert space.realize((2, 3, 1, 0), rng()).trace == '{"x": 4, "y": 8, "z": 1, "u": "a"}'
    with pytest.raises(InvalidCandidate, match="no candidate of knobs/1"):
        space.realize((0, 0, 0, 0), rng())


@pytest.mark.parametrize(
    ("knobs", "constraints", "text"),
    [
        ({}, (), "at least one knob"),
        ({"a": ()}, (), "knob a has no values"),
        ({"a": (1,)}, (lambda b: True,), "a constraint is about b; the knobs are a"),
        ({"a": (1,)}, (lambda: True,), "a constraint is about nothing"),
    ],
)
def test_bad_knobs_are_refused(
    knobs: dict[str, tuple[int, ...]], constraints: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(BadKnobs, match=text):
        KnobSpace(made_up.WORK, "bad/1", knobs, constraints)


@given(
    st.lists(st.one_of(st.none(), st.integers(-9, 99), st.lists(st.integers(1, 64), min_size=1).map(tuple)))
)
def test_text_of_drafts_comes_back(draft: list[Any]) -> None:
    assert from_text(to_text(tuple(draft))) == tuple(draft)


def test_text_of_a_draft_stays_as_it_is() -> None:
    assert to_text((0, (4, 8, 1), 3, None, (5,))) == "0 4x8x1 3 ? 5x"


def test_a_tile_that_does_not_fit_is_refused() -> None:
    space = SPACES["matmul"]()
    sketch = next(d for d in (space.sample(rng(s)) for s in range(20)) if isinstance(d[1], tuple))
    with pytest.raises(InvalidCandidate, match="is not one of its"):
        space.realize((sketch[0], (5, 1, 1, 1), *sketch[2:]), rng())


def test_mutation_reaches_every_decision() -> None:
    space, generator = SPACES["matmul"](), rng()
    draft = space.sample(generator)
    changed = set()
    for _ in range(200):
        other = space.mutate(draft, generator)
        if other[0] == draft[0]:
            changed |= {n for n, (a, b) in enumerate(zip(draft, other, strict=True)) if a != b}
    assert changed == set(range(1, len(draft)))


@given(st.integers(1, 200), st.integers(1, 4), st.integers(1, 64))
def test_factorizations_are_all_and_only_products(extent: int, parts: int, limit: int) -> None:
    found = factorizations(extent, parts, limit)
    assert len(set(found)) == len(found)
    assert all(math.prod(f) == extent and f[-1] <= limit and len(f) == parts for f in found)


def test_factorizations_are_complete() -> None:
    brute = {(a, b, c) for a in range(1, 25) for b in range(1, 25) for c in range(1, 25) if a * b * c == 24}
    assert set(factorizations(24, 3, 64)) == brute
