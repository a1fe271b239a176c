"""Attention as one kernel: found in what exporters write, equal to the model's own, else left apart."""

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import TARGET, runnable
from numpy.typing import NDArray
from running import outputs_of
from torch import Tensor, nn
from tvm.target import Target

from autotune.api import as_source
from autotune.frontends.graph import Model, lower
from autotune.target import host_target
from search import amx
from search.space import enumerate_drafts
from search.spaces import first_guess, halved_attention, template_of
from search.spaces.attention import SPACE_NAME
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace
from search.vectors import Vectors

Array = NDArray[Any]

HERE = host_target(2)
WITH_UNIT = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "sapphirerapids", "num-cores": 2})
HAS_UNIT = amx.multiplies_halves(HERE, Vectors.of(HERE, "float32").lanes)
HALVES = 1e-3  # scores of some tens are off by 2 ** -16 of what they are added up from, and then raised
needs_unit = pytest.mark.skipif(not HAS_UNIT, reason="this machine has no matrix unit for bfloat16 (AMX)")
ELSEWHERE = (
    {"mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]},
    {"mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"},
)


class Attention(nn.Module):
    """Heads of one projection: by PyTorch's own function, or written out with or without a mask."""

    def __init__(self, heads: int, kind: str = "", columns: int = 32) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.projection = nn.Linear(columns, 3 * columns)
        self.register_buffer("limits", torch.linspace(-1, 1, 12).expand(12, 12).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            t.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for t in self.projection(x).chunk(3, -1)
        )
        if self.kind == "merged":  # batches and heads are one dimension but where a mask is added
            query, key, value = (t.reshape(-1, *t.shape[2:]) for t in (query, key, value))
            scores = (query @ key.mT).view(*x.shape[:1], self.heads, *x.shape[1:2] * 2)
            scores = scores + (x[:, None, None, :, 0] > -0.5).float()
            mixed = (scores.view(-1, *scores.shape[2:]).softmax(-1) @ value).view(
                *x.shape[:1], self.heads, x.shape[1], -1
            )
        elif self.kind in ("torch", "causal"):
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.kind == "causal")
        else:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            if self.kind == "bias":
                scores = scores + self.limits
            if self.kind == "mask":
                scores = torch.where(x[:, None, None, :, 0] > -0.5, scores, torch.tensor(-1e9))
            mixed = scores.softmax(-1) @ value
        return mixed.transpose(1, 2).reshape(x.shape)


class Sequence(nn.Module):
    """PyTorch's own module, of batches first or of words first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(32, 4, batch_first=batch_first)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = self.own(x, y, y, need_weights=False)[0]
        return found


class OfImages(nn.Module):
    """Places of an image attend to each other; their channels come first."""

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2)
        weights = (places.mT @ places / 8).softmax(-1)
        return (weights @ places.mT).mT.reshape(x.shape)


class Apart(nn.Module):
    """What only looks like attention, or is better off as it is."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why
        self.known = nn.Parameter(torch.randn(1, 12, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = x[:, :2] if self.why == "few rows" else x
        values = {"odd channels": x[..., :15], "known values": self.known}.get(self.why, x)
        scores = rows @ x.mT
        weights = scores.softmax(-2 if self.why == "another axis" else -1)
        if self.why == "another function":
            weights = torch.sigmoid(scores)
        return (weights @ values, weights) if self.why == "weights wanted" else (weights @ values,)


def lowered(net: nn.Module, inputs: tuple[Tensor, ...], target: Target = TARGET) -> Model:
    return lower(as_source(net, inputs), target)


def of_attention(model: Model) -> int:
    return sum(t.weight for t in model.tasks if t.name.startswith("attention"))


def guessed(model: Model, *inputs: Tensor, target: Target = TARGET) -> list[Array]:
    guesses = {t.workload.hash: first_guess(t.workload, target) for t in model.tasks}
    traces = {hash_: guess.trace for hash_, guess in guesses.items() if guess is not None}
    return outputs_of(model, traces, *(x.numpy() for x in inputs), target=target)


def assert_close(got: Array, net: nn.Module, *inputs: Tensor, off: float = 3e-5) -> None:
    want = net.double()(*(x.double() for x in inputs)).detach().numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=off * np.abs(want).max())


KINDS = {"": 12, "torch": 12, "torch, 37 rows": 37, "causal": 12, "bias": 12, "mask": 21, "merged": 12}
FORMS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    **{
        f"of a projection {kind}": lambda kind=kind, rows=rows: (
            Attention(4, kind.partition(",")[0]),
            (torch.randn(2, rows, 32),),
        )
        for kind, rows in KINDS.items()
    },
    "module": lambda: (Sequence(True), (torch.randn(1, 12, 32), torch.randn(1, 19, 32))),
    "words first": lambda: (Sequence(False), (torch.randn(12, 2, 32), torch.randn(19, 2, 32))),
    "images": lambda: (OfImages(), (torch.randn(1, 16, 5, 4),)),
}


@pytest.mark.parametrize("form", FORMS)
def test_attention_in_any_form_is_one_kernel_and_right(form: str) -> None:
    torch.manual_seed(0)
    net, inputs = FORMS[form]()
    model = lowered(net.eval(), inputs)
    assert of_attention(model) == 1
    (task,) = (t for t in model.tasks if t.name.startswith("attention"))
    assert template_of(task.workload, TARGET).name == SPACE_NAME
    assert_close(guessed(model, *inputs)[0], net, *inputs)


def test_operands_are_read_and_results_written_where_they_are() -> None:
    """No kernel cuts out heads or puts them together: there are two products and attention."""
    net = nn.Sequential(Attention(4, "torch"), nn.Linear(32, 32)).eval()
    assert sum(t.weight for t in lowered(net, (torch.randn(1, 12, 32),)).tasks) == 3


@pytest.mark.parametrize(
    "why", ["few rows", "odd channels", "known values", "another axis", "another function", "weights wanted"]
)
def test_what_is_no_such_attention_stays_apart(why: str) -> None:
    torch.manual_seed(0)
    net, x = Apart(why).eval(), torch.randn(1, 12, 16)
    model = lowered(net, (x,))
    assert of_attention(model) == 0
    want = net(x)[0].detach().numpy()
    np.testing.assert_allclose(guessed(model, x)[0], want, atol=3e-5 * np.abs(want).max())


class Masked(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "torch":
            return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
        return (x @ x.mT + mask).softmax(-1) @ x


@pytest.mark.parametrize("rows", [16, 13])
@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_rows_of_nothing_and_of_nan_come_out_as_pytorch_has_them(kind: str, rows: int) -> None:
    x, mask = torch.randn(1, 2, rows, 16), torch.zeros(rows, rows)
    x[0, 1, 3, 5] = math.nan  # a key and a value, too: all of that head
    mask[2] = -math.inf
    mask[4, ::2] = -math.inf
    net = Masked(kind).eval()
    model = lowered(net, (x, mask))
    assert of_attention(model) == 1
    got, want = guessed(model, x, mask)[0], net(x, mask).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.isnan(want[0, 0, 2]).all() == (kind == "plain")


@st.composite
def shapes(draw: Any) -> tuple[int, ...]:
    """Heads, rows, keys, depth, channels."""
    size = st.sampled_from((4, 5, 8, 13, 16, 24, 33, 48))
    return draw(st.integers(1, 3)), draw(size), draw(size), draw(size), 4 * draw(st.integers(1, 12))


class Bare(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.mT).softmax(-1) @ value


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shapes(), st.integers(0, 2**31), st.sampled_from([HERE, *runnable("haswell", "x86-64-v2")]))
def test_every_schedule_is_right(sizes: tuple[int, ...], seed: int, target: Target) -> None:
    heads, rows, keys, depth, channels = sizes
    torch.manual_seed(seed)
    inputs = (
        torch.randn(heads, rows, depth),
        torch.randn(heads, keys, depth),
        torch.randn(heads, keys, channels),
    )
    net = Bare()
    model = lowered(net, inputs, target)
    (task,) = model.tasks
    space, rng = template_of(task.workload, target), np.random.default_rng(seed)
    assert space.name in (SPACE_NAME, halved_attention.SPACE_NAME)
    drafts = list(enumerate_drafts(space))
    trace = space.realize(drafts[rng.integers(len(drafts))], rng).trace
    got = outputs_of(model, {task.workload.hash: trace}, *(x.numpy() for x in inputs), target=target)[0]
    assert_close(got, net, *inputs, off=3e-5 if space.name == SPACE_NAME else HALVES)


@needs_unit
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 2),
    st.integers(16, 70),
    st.integers(31, 70),
    st.integers(31, 70),
    st.integers(1, 3),
    st.data(),
)
def test_every_schedule_by_halves_is_near_enough(
    heads: int, rows: int, keys: int, depth: int, blocks: int, data: st.DataObject
) -> None:
    torch.manual_seed(rows)
    width = blocks * amx.LANES
    inputs = torch.randn(heads, rows, depth), torch.randn(heads, keys, depth), torch.randn(heads, keys, width)
    net = Bare()
    model = lowered(net, tuple(x / depth**0.25 for x in inputs), HERE)
    (task,) = model.tasks
    space, rng = template_of(task.workload, HERE), np.random.default_rng(0)
    assert space.name == halved_attention.SPACE_NAME
    draft = data.draw(st.sampled_from(list(enumerate_drafts(space))))
    trace = space.realize(draft, rng).trace
    got = outputs_of(model, {task.workload.hash: trace}, *(x.numpy() for x in inputs), target=HERE)[0]
    assert_close(got, net, *inputs, off=HALVES)


def test_halves_are_for_full_registers() -> None:
    """Else vectors; and where only a target has the unit, schedules can be made all the same."""
    for columns, form in ((128, halved_attention.SPACE_NAME), (64, SPACE_NAME)):  # of 4 heads: 32 and 16
        model = lowered(Attention(4, "torch", columns), (torch.randn(1, 40, columns),), WITH_UNIT)
        (task,) = (t for t in model.tasks if t.name.startswith("attention"))
        assert template_of(task.workload, WITH_UNIT).name == form


GUESS = """
import pickle, sys
from tvm.target import Target
from search.spaces import first_guess
workload, target = pickle.loads(sys.stdin.buffer.read())
print(first_guess(workload, Target(target)).trace)
"""


def test_a_schedule_is_the_same_in_every_process() -> None:
    """Python orders sets of names differently in each."""
    model = lowered(Attention(4, "causal"), (torch.ones(1, 12, 32),))
    (workload,) = (t.workload for t in model.tasks if t.name.startswith("attention"))
    guess = first_guess(workload, TARGET)
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", GUESS], input=pickle.dumps((workload, str(TARGET))), env=environment,
        capture_output=True, check=True,
    )  # fmt: skip
    assert guess is not None and result.stdout.decode().strip() == guess.trace


@pytest.mark.parametrize("processor", ELSEWHERE, ids=lambda p: p["mtriple"])
def test_other_processors_have_schedules_too(processor: dict[str, Any]) -> None:
    target = Target({"kind": "llvm", "num-cores": 4, **processor})
    model = lowered(Attention(4, "torch"), (torch.randn(1, 37, 32),), target)
    (task,) = (t for t in model.tasks if t.name.startswith("attention"))
    guess = first_guess(task.workload, target)
    assert guess is not None and guess.space == SPACE_NAME
    assert tvm.tirx.build(apply_trace(module_of(task.workload), guess.trace), target=target)
