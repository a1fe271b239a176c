"""Decisions as tokens: what they depend on, and on what they do not."""

import re

import made_up_data as made
import numpy as np
import operators as op
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.encodings.hardware import HARDWARE_FEATURES, encode_hardware
from costmodels.encodings.sequence import CONTEXT_FEATURES, TOKEN_FEATURES, SequenceEncoder, joined
from search.problem import Conditions, Hardware
from search.space import Space
from search.spaces import SPACES, spaces_of
from search.spaces.tir import workload_from_tir

WORKLOADS = {
    "product": op.product((24,), 32, 48, 16).workload,
    "convolution": op.convolution().workload,
    "depthwise": op.depthwise().workload,
    "softmax": op.softmax(16, 32).workload,
}
ENCODERS: dict[tuple[str, str], tuple[Space, SequenceEncoder]] = {
    (name, space.name): (space, SequenceEncoder(space, made.CONDITIONS))
    for name, workload in WORKLOADS.items()
    for space in spaces_of(workload, made.TARGET)
}
encoders = pytest.mark.parametrize("key", ENCODERS, ids="-".join)


@encoders
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_prefix_is_encoded_as_it_is_in_the_whole(key: tuple[str, str], seed: int) -> None:
    space, encoder = ENCODERS[key]
    rng = np.random.default_rng(seed)
    drafts = [space.sample(rng) for _ in range(4)]
    whole = encoder.encode(drafts)
    assert np.isfinite(whole.tokens).all()
    assert whole.tokens.shape[2] == TOKEN_FEATURES
    assert whole.lengths.tolist() == [len(d) for d in drafts]
    for row, draft in enumerate(drafts):
        length = int(rng.integers(1, len(draft) + 1))
        part = encoder.encode([draft[:length]])
        np.testing.assert_array_equal(part.tokens[0], whole.tokens[row, :length])
        assert not whole.tokens[row, len(draft) :].any()


@encoders
def test_different_decisions_look_different(key: tuple[str, str]) -> None:
    space, encoder = ENCODERS[key]
    rng = np.random.default_rng(0)
    drafts = list(dict.fromkeys(space.sample(rng) for _ in range(50)))
    tokens = encoder.encode(drafts).tokens
    assert len({t.tobytes() for t in tokens}) == len(drafts)


@encoders
def test_other_drafts_are_not_known(key: tuple[str, str]) -> None:
    space, encoder = ENCODERS[key]
    draft = space.sample(np.random.default_rng(0))
    assert encoder.knows(draft)
    assert encoder.knows(draft[:1])
    assert not encoder.knows((*draft, 0, 0, 0))
    assert not encoder.knows(())


def test_names_do_not_matter() -> None:
    """The same kernel under other names has the same subject."""
    module = tvm.ir.load_json(WORKLOADS["product"].module_json)
    text = re.sub(r"\bw\b", "right", re.sub(r"\bx\b", "left", module["main"].script()))
    renamed = tvm.script.from_source(text)
    other = workload_from_tir(renamed, "other")
    first, second = (
        SequenceEncoder(SPACES["contraction/4"](w, made.TARGET), made.CONDITIONS).subject
        for w in (WORKLOADS["product"], other)
    )
    np.testing.assert_array_equal(first.nodes, second.nodes)
    np.testing.assert_array_equal(first.context, second.context)


def test_hardware_is_part_of_the_context() -> None:
    space, encoder = ENCODERS["product", "contraction/4"]
    assert encoder.subject.context.shape == (CONTEXT_FEATURES,)
    slower = Hardware("slow", 1, {}, {"peak_gflops_f32": 10.0})
    other = SequenceEncoder(space, Conditions(slower, made.CONDITIONS.target, 1))
    assert (other.subject.context != encoder.subject.context).any()
    np.testing.assert_array_equal(other.subject.nodes, encoder.subject.nodes)


def test_unknown_hardware_is_finite() -> None:
    features = encode_hardware(Conditions(Hardware("?", 1), "{}", 1))
    assert features.shape == (HARDWARE_FEATURES,)
    assert np.isfinite(features).all()


def test_sequences_of_several_spaces_are_joined() -> None:
    rng = np.random.default_rng(0)
    parts = [
        encoder.encode([space.sample(rng) for _ in range(3)])
        for (name, _), (space, encoder) in ENCODERS.items()
        if name == "product"
    ]
    whole = joined(parts)
    assert whole.lengths.tolist() == [n for p in parts for n in p.lengths]
    assert whole.tokens.shape[1] == max(p.tokens.shape[1] for p in parts)
    np.testing.assert_array_equal(
        whole.of(np.array([0])).tokens[0, : parts[0].tokens.shape[1]], parts[0].tokens[0]
    )
