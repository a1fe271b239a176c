"""The contract of every space; a new one joins by a line in ``SPACES``."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import TARGET, convolution, copy, matmul, softmax, workload

from search.errors import InvalidCandidate
from search.problem import Choice
from search.space import Space
from search.spaces.tir import module_of
from search.spaces.trace import TraceSpace, apply_trace, factorizations

SPACES: dict[str, Callable[[], Space]] = {
    "matmul": lambda: TraceSpace(workload(matmul()), TARGET),
    "convolution": lambda: TraceSpace(workload(convolution()), TARGET),
    "softmax": lambda: TraceSpace(workload(softmax()), TARGET),  # places to compute at, nine sketches
    "copy": lambda: TraceSpace(workload(copy()), TARGET),  # nothing to decide
    "prime": lambda: TraceSpace(workload(matmul(13, 7, 1)), TARGET),
}


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


def test_a_trace_replays_without_the_space(space: Space) -> None:
    candidate = space.realize(space.sample(rng(2)), rng(2))
    assert apply_trace(module_of(space.workload), candidate.trace) is not None


@pytest.mark.parametrize("draft", [(99,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), ("zero",)])
def test_nonsense_is_refused(space: Space, draft: tuple[Choice, ...]) -> None:
    with pytest.raises(InvalidCandidate):
        space.realize(draft, rng())


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
