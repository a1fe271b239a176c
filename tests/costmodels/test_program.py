"""Graphs of programs: what they say, what they do not depend on, and that nothing is refused."""

import functools
import itertools
import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import operators as op
import pytest
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import TARGET, convolution, matmul, softmax, workload
from tvm import s_tir, te, tirx, topi
from tvm.s_tir import Schedule

from costmodels.encodings.program import (
    KERNEL,
    KERNEL_FEATURES,
    KINDS,
    LOOPS,
    NODE,
    NODE_FEATURES,
    RELATIONS,
    ProgramGraph,
    encode_program,
)
from search.errors import InvalidCandidate
from search.space import Space
from search.spaces.contraction import ContractionSpace
from search.spaces.depthwise import DepthwiseSpace
from search.spaces.loops import LoopSpace
from search.spaces.tir import module_of
from search.spaces.trace import TraceSpace, apply_trace

TAIL = op.Tail(bias=True, residual=True, relu=True, crop=24)
SPACES: dict[str, Callable[[], Space]] = {
    "product": lambda: ContractionSpace(op.product(tail=op.Tail(relu=True)).workload, TARGET),
    "double product": lambda: ContractionSpace(op.product(dtype="float64").workload, TARGET),
    "convolution": lambda: ContractionSpace(op.convolution(tail=TAIL).workload, TARGET),
    "depthwise": lambda: DepthwiseSpace(op.depthwise(tail=op.Tail(bias=True)).workload, TARGET),
    "pooling": lambda: LoopSpace(op.max_pool().workload, TARGET),
    "normalisation": lambda: LoopSpace(op.layer_norm().workload, TARGET),
    "softmax": lambda: LoopSpace(op.softmax().workload, TARGET),
    "transpose": lambda: LoopSpace(op.transpose().workload, TARGET),
    "concatenation": lambda: LoopSpace(op.concatenate().workload, TARGET),
    "unit": lambda: LoopSpace(op.relu(1).workload, TARGET),
    "TVM's matmul": lambda: TraceSpace(workload(matmul()), TARGET),
    "TVM's unit matmul": lambda: TraceSpace(workload(matmul(1, 1, 1)), TARGET),
    "TVM's integers": lambda: TraceSpace(integers(), TARGET),
    "TVM's convolution": lambda: TraceSpace(workload(convolution()), TARGET),
    "TVM's softmax": lambda: TraceSpace(workload(softmax()), TARGET),
    "TVM's depthwise": lambda: TraceSpace(op.depthwise(stride=2).workload, TARGET),
}


def integers() -> Any:
    a, b = te.placeholder((8, 16), "int8", name="a"), te.placeholder((16, 8), "int8", name="b")
    k = te.reduce_axis((0, 16), "k")
    c = te.compute(
        (8, 8), lambda i, j: te.sum(a[i, k].astype("int32") * b[k, j].astype("int32"), axis=k), name="c"
    )
    return workload(te.create_prim_func([a, b, c]))


@functools.cache
def realized(name: str, count: int = 12) -> list[tvm.IRModule]:
    """Modules of a space's candidates, as searchers realize them."""
    space, rng = SPACES[name](), np.random.default_rng(0)
    traces = dict[str, None]()
    for _ in range(count):
        with suppress(InvalidCandidate):
            traces[space.realize(space.sample(rng), rng).trace] = None
    assert traces
    return [apply_trace(module_of(space.workload), t) for t in traces]


def module(function: tirx.PrimFunc) -> tvm.IRModule:
    return tvm.IRModule({"main": function})


def same(left: ProgramGraph, right: ProgramGraph) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def check(graph: ProgramGraph) -> None:
    """What holds of every graph."""
    count = len(graph.kinds)
    assert graph.nodes.shape == (count, NODE_FEATURES)
    assert graph.kernel.shape == (KERNEL_FEATURES,)
    assert graph.edges.shape == (2, len(graph.relations))
    assert [a.dtype for a in graph] == [np.int64, np.float32, np.int64, np.int64, np.float32]
    for values in (graph.nodes, graph.kernel):
        assert np.isfinite(values).all()
        assert 0 <= values.min() <= values.max() < 64
    assert ((graph.kinds >= 0) & (graph.kinds < len(KINDS))).all()
    assert ((graph.edges >= 0) & (graph.edges < count)).all()
    edges = {(*map(int, e), int(r)) for e, r in zip(graph.edges.T, graph.relations, strict=True)}
    assert len(edges) == len(graph.relations)
    half = len(RELATIONS) // 2
    assert edges == {(b, a, (r + half) % len(RELATIONS)) for a, b, r in edges}


class Reader:
    """A graph by the names of what is in it, in the numbers that features are logarithms of."""

    def __init__(self, graph: ProgramGraph) -> None:
        check(graph)
        self.kinds = [KINDS[k] for k in graph.kinds]
        self.nodes = [dict(zip(NODE, row, strict=True)) for row in np.exp2(graph.nodes.astype(float)) - 1]
        self.kernel = dict(zip(KERNEL, np.exp2(graph.kernel.astype(float)) - 1, strict=True))
        self._edges = list(zip(graph.relations, *graph.edges, strict=True))

    def edges(self, relation: str) -> list[tuple[int, int]]:
        return [(int(a), int(b)) for r, a, b in self._edges if RELATIONS[r] == relation]

    def column(self, feature: str, *kinds: str) -> list[float]:
        return [round(n[feature], 2) for n, k in zip(self.nodes, self.kinds, strict=True) if k in kinds]

    def access(self, node: int, which: str) -> dict[str, float]:
        prefix = f"{which}: "
        return {
            f.removeprefix(prefix): round(x, 2) for f, x in self.nodes[node].items() if f.startswith(prefix)
        }


def test_features_have_names_of_their_own() -> None:
    assert len(set(NODE)) == NODE_FEATURES
    assert len(set(KERNEL)) == KERNEL_FEATURES


@pytest.mark.parametrize("name", SPACES)
def test_every_candidate_is_encoded(name: str) -> None:
    for some in realized(name):
        check(encode_program(some))


@pytest.mark.parametrize("name", SPACES)
def test_equal_programs_have_equal_graphs(name: str) -> None:
    for some in realized(name):
        again = tvm.ir.load_json(tvm.ir.save_json(some))
        assert same(encode_program(some), encode_program(again))


def lowered(some: tvm.IRModule) -> int:
    """Hash of the loops and stores that a program comes down to, by TVM's own passes."""
    passes = s_tir.transform
    opaque = passes.ConvertBlocksToOpaque()(passes.LowerInitBlock()(some))
    some = passes.StmtSimplify()(passes.LowerOpaqueBlock()(opaque))
    return int(tvm_ffi.structural_hash(some, map_free_vars=True))


@pytest.mark.parametrize(
    "name", ["product", "convolution", "depthwise", "pooling", "TVM's matmul", "TVM's softmax"]
)
def test_graphs_differ_where_programs_do(name: str) -> None:
    """Knobs that make no difference, such as the order of loops that run once, make none here."""
    graphs = [(encode_program(m), lowered(m)) for m in realized(name, 40)]
    assert len({code for _, code in graphs}) > 3
    for (left, code), (right, other) in itertools.combinations(graphs, 2):
        assert same(left, right) == (code == other)


def test_a_knob_changes_the_graph() -> None:
    space = ContractionSpace(op.convolution(tail=TAIL).workload, TARGET)
    first = space.first()
    drafts = [first, *space.neighbours(first)]
    rng = np.random.default_rng(0)
    modules = [apply_trace(module_of(space.workload), space.realize(d, rng).trace) for d in drafts]
    original, *others = [(encode_program(m), lowered(m)) for m in modules]
    changed = [graph for graph, code in others if code != original[1]]
    assert len(changed) >= 4
    assert not any(same(original[0], graph) for graph in changed)


def renamed(some: tvm.IRModule, seed: int) -> tvm.IRModule:
    """With other names of variables, buffers, blocks and the function; buffers declared in another order."""
    rng = np.random.default_rng(seed)
    graph = json.loads(tvm.ir.save_json(some))
    nodes = graph["nodes"]
    numbers = iter(rng.permutation(len(nodes)))
    for node in list(nodes):
        field = {"ir.Var": "name", "s_tir.SBlock": "name_hint"}.get(node["type"])
        if field is not None:
            node["data"][field] = len(nodes)
            nodes.append({"type": "ffi.String", "data": f"n{next(numbers)}"})
        if node["type"] == "s_tir.SBlock":
            rng.shuffle(nodes[node["data"]["alloc_buffers"]].get("data", []))
    (function,) = tvm.ir.load_json(json.dumps(graph)).functions.values()
    return tvm.IRModule({"renamed": function.with_attr("global_symbol", "renamed")})


@pytest.mark.parametrize("name", ["convolution", "softmax", "TVM's convolution", "TVM's softmax"])
@given(place=st.integers(0, 2**16), seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_names_and_order_of_declarations_do_not_matter(name: str, place: int, seed: int) -> None:
    modules = realized(name)
    some = modules[place % len(modules)]
    other = renamed(some, seed)
    assert other.script() != some.script()
    assert same(encode_program(other), encode_program(some))


def test_matrix_product_by_hand() -> None:
    s = Schedule(module(matmul(32, 64, 16)))
    block = s.get_sblock("matmul")
    i, j, k = s.get_loops(block)
    jo, ji = s.split(j, [None, 8])
    s.reorder(i, jo, k, ji)
    s.vectorize(ji)
    s.parallel(i)
    s.annotate(jo, "pragma_auto_unroll_max_step", 64)
    s.decompose_reduction(block, k)
    read = Reader(encode_program(s.mod))
    assert read.kinds == [
        *("parallel", "serial", "vectorized", "fill", "serial", "vectorized", "reduce"),
        *("argument", "argument", "argument"),  # what is written first is used first
    ]
    assert read.column("loop: extent", *LOOPS) == [32, 8, 8, 16, 8]
    assert read.column("loop: outside", *LOOPS) == [1, 32, 256, 256, 4096]
    assert read.column("loop: inside", *LOOPS) == [8 * (8 + 128), 8 + 128, 1, 8, 1]
    assert read.column("loop: depth", *LOOPS) == [0, 1, 2, 2, 3]
    assert read.column("loop: pragma_auto_unroll_max_step", *LOOPS) == [0, 64, 0, 0, 0]
    # A vector of the sum, one number of the left operand, 8 numbers (half a line) of the right.
    assert read.column("loop: footprint", "vectorized") == [64, 3 * 64]
    assert read.column("buffer: bytes", "argument") == [32 * 64 * 4, *(32 * 16 * 4, 16 * 64 * 4)]
    assert set(read.edges("contains")) == {(0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (5, 6)}
    assert set(read.edges("next")) == {(2, 4), (3, 6)}
    assert set(read.edges("writes")) == {(3, 7), (6, 7)}
    assert set(read.edges("reads")) == {(7, 6), (8, 6), (9, 6)}
    update = read.nodes[6]
    assert update["statement: executions"] == pytest.approx(32 * 64 * 16)
    assert [update[f"statement: {f}"] for f in ("add", "multiply", "load", "reduction")] == [1, 1, 3, 1]
    written, right, left = (read.access(6, which) for which in ("write", "read 0", "read 1"))
    assert [written[f"stride {n}"] for n in range(3)] == [1, 0, 8]
    assert [right[f"stride {n}"] for n in range(3)] == [1, 64, 8]
    assert [left[f"stride {n}"] for n in range(3)] == [0, 1, 0]
    assert [left[f"constant {n}"] for n in range(3)] == [1, 0, 1]
    assert [right[f"footprint {n}"] for n in range(4)] == [64, 16 * 64, 16 * 64 * 4, 16 * 64 * 4]
    assert [left[f"reuse {n}"] for n in range(4)] == [8, 8, 64, 64]
    assert [written["contiguous"], right["contiguous"], left["contiguous"]] == [1, 1, 0]
    assert not read.access(6, "read 2")["present"]
    assert read.kernel["flop"] == pytest.approx(2 * 32 * 64 * 16)
    assert read.kernel["parallel"] == pytest.approx(32)
    assert read.kernel["vector share"] == pytest.approx(1)


def test_what_tvm_asks_for_is_noted() -> None:
    graphs = [Reader(encode_program(m)) for m in realized("TVM's matmul")]
    assert {round(max(g.column("loop: pragma_auto_unroll_max_step", *LOOPS))) for g in graphs} > {16, 64}
    s = Schedule(module(matmul()))
    s.annotate(s.get_sblock("root"), "meta_schedule.parallel", 32)
    assert Reader(encode_program(s.mod)).kernel["meta_schedule.parallel"] == pytest.approx(32)


def test_a_sum_starts_once_for_each_element() -> None:
    read = Reader(encode_program(module(matmul(4, 8, 16))))
    assert read.kinds[:5] == ["serial", "serial", "serial", "fill", "reduce"]
    assert read.column("statement: executions", "fill", "reduce") == [4 * 8, 4 * 8 * 16]
    assert (3, 4) in read.edges("next")


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_tiles_touch_what_the_whole_does(data: st.DataObject) -> None:
    """However loops are split, reordered and fused: the same bytes, equally often."""
    s = Schedule(module(matmul(16, 32, 8)))
    whole, loops = totals(s.mod), s.get_loops(s.get_sblock("matmul"))
    tiles = st.sampled_from((1, 2, 4, 8))
    (io, ii), (jo, ji), k = (*(s.split(x, [None, data.draw(tiles)]) for x in loops[:2]), loops[2])
    if data.draw(st.booleans()):
        s.reorder(io, jo, ii, ji, k)
        outer = [s.fuse(io, jo)]
    else:
        outer = [io, jo]
    places = data.draw(st.permutations(range(len(outer) + 3)))
    s.reorder(*([*outer, ii, ji, k][n] for n in places))
    assert totals(s.mod) == whole


def totals(some: tvm.IRModule) -> list[object]:
    """Of a product, how often it adds and, of what it writes and reads, the bytes touched and how often."""
    read = Reader(encode_program(some))
    node = read.kinds.index("reduce")
    accesses = [read.access(node, which) for which in ("write", "read 0", "read 1")]
    written, *operands = [(a["footprint all"], a["reuse all"]) for a in accesses]
    return [read.column("statement: executions", "reduce"), written, sorted(operands)]


def fused(extents: tuple[int, ...], split: int) -> tvm.IRModule:
    x = te.placeholder(extents, name="x")
    s = Schedule(module(te.create_prim_func([x, te.compute(extents, lambda *i: x(*i) * 2.0, name="y")])))
    s.split(s.fuse(*s.get_loops(s.get_sblock("y"))), [None, split])
    return s.mod


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_split_of_fused_loops_is_encoded(extents: list[int], split: int) -> None:
    """Indices are quotients and remainders; where a split leaves a rest there are guards."""
    read = Reader(encode_program(fused(tuple(extents), split)))
    size = math.prod(extents)
    (node,) = [n for n, kind in enumerate(read.kinds) if kind == "map"]
    written = read.access(node, "write")
    assert written["footprint all"] == pytest.approx(64 * math.ceil(size * 4 / 64), rel=0.01)
    assert read.nodes[node]["statement: guarded"] == (size % split != 0)
    assert written["contiguous"] == (size > 1 and not (split == 1 and size == 1))


def test_what_a_loop_touches_depends_on_its_place() -> None:
    """Reading a matrix across takes whole lines for single numbers."""
    for order, lines in (((0, 1), 4), ((1, 0), 64)):
        x = te.placeholder((64, 64), name="x")
        s = Schedule(module(te.create_prim_func([x, topi.nn.relu(x)])))
        loops = s.get_loops(s.get_sblock("compute"))
        s.reorder(*(loops[n] for n in order))
        read = Reader(encode_program(s.mod))
        assert read.column("read 0: footprint 0", "map") == [lines * 64]
        assert read.column("loop: footprint", "serial")[1] == 2 * lines * 64


def test_guarded_blocks_under_loops_of_varying_length() -> None:
    x = te.placeholder((13, 20), name="x")
    y = te.compute((13, 20), lambda *i: x(*i) * 2.0, name="y")
    s = Schedule(module(te.create_prim_func([x, te.compute((13, 20), lambda *i: y(*i) + 1.0, name="z")])))
    outer, _ = s.split(s.get_loops(s.get_sblock("z"))[0], [None, 4])
    s.compute_at(s.get_sblock("y"), outer)
    read = Reader(encode_program(s.mod))
    assert read.column("statement: guarded", "map") == [1, 1]
    assert read.column("statement: compare", "map") == [1, 1]
    assert [read.column(f"statement: {f}", "map") for f in ("multiply", "add")] == [[1, 0], [0, 1]]
    assert "global" in read.kinds


def test_what_decides_where_to_read_is_read() -> None:
    table, places = te.placeholder((100, 16), name="t"), te.placeholder((5,), "int32", name="p")
    rows = te.compute((5, 16), lambda i, j: table[places[i], j], name="rows")
    read = Reader(encode_program(module(te.create_prim_func([table, places, rows]))))
    assert len(read.edges("reads")) == 2
    assert read.column("statement: reads", "copy") == [2]
    assert read.column("buffer: float", "argument") == [1, 1, 0]


def test_indices_that_are_no_sums() -> None:
    image = te.placeholder((1, 5, 6, 3), name="image")
    check(
        encode_program(
            module(te.create_prim_func([image, topi.image.resize2d(image, [0.0] * 4, (7, 9), "NHWC")]))
        )
    )
    x = te.placeholder((8, 8), name="x")
    y = te.compute((8, 8), lambda i, j: x[(i * j) % 8, tirx.min(i * 2 + j, 7)] + x[7 - i, j], name="y")
    check(encode_program(module(te.create_prim_func([x, y]))))


@pytest.mark.parametrize("dtype, width", [("int8", 1), ("float16", 2), ("float32", 4), ("float64", 8)])
def test_widths(dtype: str, width: int) -> None:
    x = te.placeholder((4, 32), dtype, name="x")
    y = te.compute((4, 32), lambda *i: x(*i) + x(*i), name="y")
    read = Reader(encode_program(module(te.create_prim_func([x, y]))))
    assert read.column("buffer: width", "argument") == [width] * 2
    assert read.column("read 0: width", "map") == [width]
    assert read.column("statement: float", "map") == [dtype.startswith("float")]
    assert read.column("read 0: footprint all", "map") == [2 * width * 64]


def test_no_loops_at_all() -> None:
    x = te.placeholder((), name="x")
    read = Reader(
        encode_program(module(te.create_prim_func([x, te.compute((), lambda: x() + 1.0, name="y")])))
    )
    assert read.kinds == ["map", "argument", "argument"]
    assert read.column("read 0: footprint all", "map") == [64]


def test_views_are_of_what_they_show() -> None:
    """What stands in the blocks of instructions, as of int8 products, refers to parts of other buffers."""
    function = tvm.script.from_source(VIEW)
    read = Reader(encode_program(tvm.IRModule({"main": function})))
    assert read.kinds.count("argument") == 2
    assert "local" not in read.kinds
    (node,) = [n for n, kind in enumerate(read.kinds) if kind == "copy"]
    assert [read.access(node, "read 0")[f"stride {n}"] for n in range(2)] == [1, 16]
    assert read.nodes[node]["statement: guarded"]
    (call,) = [n for n, kind in enumerate(read.kinds) if kind == "call"]
    assert read.nodes[call]["statement: executions"] == pytest.approx(4)


def test_loops_of_varying_length_count_as_the_first_time() -> None:
    read = Reader(encode_program(tvm.IRModule({"main": tvm.script.from_source(VARYING)})))
    assert read.column("loop: extent", *LOOPS) == [4, 5, 4, 6]
    assert read.column("buffer: bytes", "argument") == [80, 16]  # those that statements use


VARYING = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((20,), "float32"), n: T.Buffer((4,), "int32"), y: T.Buffer((4,), "float32")):
    with T.sblock("root"):
        for i in range(4):
            for j in range(T.min(5, 17 - i * 5)):
                with T.sblock("first"):
                    v = T.axis.spatial(20, i * 5 + j)
                    x[v] = T.float32(0)
        for i in T.serial(T.int64(4)):
            for j in range(T.min(T.int64(6), T.int64(17) - i * T.int64(5))):
                for k in range(n[i]):
                    with T.sblock("second"):
                        v, w = T.axis.remap("SR", [i, j])
                        y[v] = y[v] + T.float32(1)
"""

VIEW = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
    with T.sblock("root"):
        for i in range(4):
            with T.sblock("part"):
                v = T.axis.spatial(4, i)
                T.reads(x[v, 0:16])
                T.writes(y[v, 0:16])
                a = T.match_buffer(x[v, 0:16], (16,), offset_factor=1)
                b = T.match_buffer(y[v, 0:16], (16,), offset_factor=1)
                T.evaluate(T.call_extern("int32", "touch", v))
                for j in range(16):
                    if j < 12:
                        b[j] = a[j]
"""
