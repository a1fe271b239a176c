"""Weights fetched ahead: the next ones, each line once, where they are used rarely."""

import itertools
from typing import Any

import numpy as np
import operators as op
import pytest
import tvm
from operators import Operator, Tail, scheduled
from tvm import te, tirx
from tvm.sym import Analyzer
from tvm.target import Target

from autotune.frontends import halves
from autotune.frontends.winograd import Axis, Form
from autotune.target import host_target
from search import ahead
from search.compiler import written_out
from search.space import enumerate_drafts
from search.spaces.contraction import ContractionSpace
from search.spaces.halves import HalvesSpace
from search.spaces.tir import module_of, workload_from_tir
from search.spaces.winograd import WinogradSpace
from search.vectors import Vectors

TARGET = host_target(2)
WITH_UNIT = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "sapphirerapids", "num-cores": 2})
LANES = Vectors.of(TARGET, "float32").lanes
KERNELS = {
    "3x3": op.convolution(1, 7, 7, 32, 4, LANES, 3, 1, 1, 1, Tail()),
    "1x1": op.convolution(1, 14, 14, 64, 4, LANES, 1, 1, 1, 0, Tail()),
    "product": op.product([28], 96, 4 * LANES, LANES, Tail()),
}


def space_of(kernel: Operator, target: Target = TARGET) -> ContractionSpace:
    return ContractionSpace(kernel.workload, target)


def fetches(node: Any, loops: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """The loops around each instruction, and the place it names."""
    match node:
        case tirx.SeqStmt():
            return [found for part in node.seq for found in fetches(part, loops)]
        case tirx.For():
            return fetches(node.body, (*loops, node))
        case tvm.s_tir.SBlockRealize():
            return fetches(node.block.body, loops)
        case tirx.Evaluate() if str(node.value.op.name) == "tirx.prefetch":
            return [(loops, node.value.args[0].args[0].indices[-1])]
    return []


def places(loops: tuple[Any, ...], place: Any, outermost: int) -> list[int]:
    """Of all turns of the loops within one turn of the outermost."""
    found = []
    for turns in itertools.product([outermost], *(range(int(n.extent)) for n in loops[1:])):
        analyzer = Analyzer()
        for loop, turn in zip(loops, turns, strict=True):
            analyzer.bind(loop.loop_var, tirx.const(turn, "int64"))
        found.append(int(analyzer.simplify(place)))
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_while_weights_are_used_all_of_the_next_are_fetched(name: str) -> None:
    space = space_of(KERNELS[name])
    configurations = [(d, space.configuration(d)) for d in enumerate_drafts(space)]
    some = [(d, c["n"]) for d, c in configurations if c["order"] == "weights" and c["n"] in (1, 2)]
    weights = np.prod(space.workload.args[1].shape)
    for draft, vectors in some[:: len(some) // 3]:
        ((loops, place),) = fetches(written_out(scheduled(space, draft))["main"].body)
        part = weights * vectors // 4
        found = places(loops, place, 0)
        line = ahead.LINE_BYTES // 4
        assert min(found) == part  # the first that this turn of the outermost loop does not use itself
        assert set(found) >= set(range(part, 2 * part, line))
        assert len(set(found)) == len(found)  # none twice


def test_weights_for_registers_are_fetched_likewise() -> None:
    rows, inputs, tile = 96, 512, (16, 2, 16, 32, 2)
    x, w = te.placeholder((rows, inputs)), te.placeholder((8, *tile), "bfloat16")
    product = te.create_prim_func([x, w, halves.matmul(halves.halves(x, rows), w)])
    space = HalvesSpace(workload_from_tir(product, "product"), WITH_UNIT)
    draft = next(d for d in enumerate_drafts(space) if space.configuration(d)["order"] == "weights")
    ((loops, place),) = fetches(written_out(scheduled(space, draft))["main"].body)
    found, each, line = places(loops, place, 0), int(np.prod(tile)), ahead.LINE_BYTES // 2
    wanted = range(each, 5 * each, line)  # a core has half of the tiles, and fetches on to the next
    assert min(found) == each and set(found) >= set(wanted)
    assert len(found) < 1.1 * len(wanted)


def test_those_of_a_share_of_channels_are_fetched_for_the_next_place_of_a_tile() -> None:
    inputs, blocks, line = 16, 4, ahead.LINE_BYTES // 4
    x, u = te.placeholder((1, 16, 16, inputs)), te.placeholder((6, 6, blocks, inputs, LANES))
    form = Form(Axis(3, 6), Axis(3, 6))
    kernel = te.create_prim_func([x, u, form.convolution(x, u, (1, 1, 1, 1), (1, 16, 16, blocks * LANES))])
    space = WinogradSpace(workload_from_tir(kernel, "winograd"), TARGET)
    draft = next(
        d for d in enumerate_drafts(space) if (c := space.configuration(d))["rows"] == 4 and c["shares"] == 2
    )
    ((loops, place),) = fetches(written_out(scheduled(space, draft))["main"].body)
    plane = blocks * inputs * LANES
    for share in (0, 1):
        first = plane + share * plane // 2
        expected = {p * plane + n for p in range(36) for n in range(first, first + plane // 2, line)}
        assert set(places(loops, place, share)) == expected
    whole = next(
        d for d in enumerate_drafts(space) if (c := space.configuration(d))["rows"] == 2 and c["shares"] == 1
    )
    ((loops, place),) = fetches(written_out(scheduled(space, whole))["main"].body)
    for part in (0, 1):  # cores have half of the image each, and use all weights
        assert set(places(loops, place, part)) == set(range(plane, 37 * plane, line))
    again = next(d for d in enumerate_drafts(space) if space.configuration(d)["rows"] == 1)
    assert not fetches(written_out(scheduled(space, again))["main"].body)  # a core would fetch all twice


def test_there_is_nothing_to_fetch_where_all_weights_are_used_together() -> None:
    space = space_of(KERNELS["1x1"])
    draft = next(d for d in enumerate_drafts(space) if space.configuration(d)["n"] == 4)
    assert not fetches(written_out(scheduled(space, draft))["main"].body)


def test_a_module_without_marks_stays_as_it_is() -> None:
    module = module_of(space_of(KERNELS["1x1"]).workload)
    assert written_out(module) is module


@pytest.mark.parametrize(("rows", "expected"), [(1, False), (2, True), (196, True), (56 * 56, False)])
def test_it_pays_where_few_rows_share_weights_but_more_than_one(rows: int, expected: bool) -> None:
    assert ahead.pays(rows) is expected


@pytest.mark.parametrize(
    ("target", "instruction"),
    [
        ({"mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}, "prefetcht0"),
        ({"mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]}, "prfm"),
    ],
)
def test_other_processors_have_such_an_instruction(target: dict[str, Any], instruction: str) -> None:
    elsewhere = Target({"kind": "llvm", "num-cores": 4, **target})
    space = space_of(KERNELS["1x1"], elsewhere)
    module = written_out(scheduled(space, space.first()))
    assert instruction in tvm.compile(module, target=elsewhere).mod.inspect_source("asm")
