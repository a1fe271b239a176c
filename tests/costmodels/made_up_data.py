"""Groups of candidates whose times follow from their knobs, so that there is something to learn."""

import math

import numpy as np
import operators as op
from tvm.target import Target

from autotune.target import canonical
from costmodels.data import Group
from costmodels.formula import roofline_s
from search.problem import Conditions, Hardware, Workload
from search.space import Draft
from search.spaces import SPACES
from search.spaces.contraction import SPACE_NAME, ContractionSpace

TARGET = Target({"kind": "llvm", "mcpu": "skylake-avx512", "num-cores": 2})  # nothing of it is run
HARDWARE = Hardware("made up", 2, {"isa": ["avx2"]}, {"peak_gflops_f32": 200.0, "bandwidth_gbps": 30.0})
CONDITIONS = Conditions(HARDWARE, canonical(TARGET), 2)


def time_s(space: ContractionSpace, draft: Draft) -> float:
    """Fast where a tile has many sums."""
    c = space.configuration(draft)
    sums = int(c["n"]) * int(c["y"]) * int(c["x"])
    return roofline_s(space.workload, CONDITIONS) * (1 + 8 / sums + 0.3 * (c["order"] == "weights"))


def matmuls() -> list[Workload]:
    return [op.product((m,), 32, n, 16).workload for m in (8, 16, 24, 48) for n in (32, 64, 96)]


def group(workload: Workload, network: str, n: int = 40, failed: int = 0, seed: int = 0) -> Group:
    space = SPACES[SPACE_NAME](workload, TARGET)
    assert isinstance(space, ContractionSpace)
    rng = np.random.default_rng(seed)
    drafts = list(dict.fromkeys(space.sample(rng) for _ in range(n)))
    times = [math.inf if i < failed else time_s(space, d) for i, d in enumerate(drafts)]
    candidates = tuple(space.realize(d, rng) for d in drafts)
    return Group(
        workload, CONDITIONS, candidates, np.array(times), frozenset({network}),
        roofline_s(workload, CONDITIONS),
    )  # fmt: skip


def learnable(n: int = 40) -> list[Group]:
    return [group(w, f"network-{i % 4}", n, seed=i) for i, w in enumerate(matmuls())]
