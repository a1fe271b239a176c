"""A scheduled program as a graph, for networks over graphs: loops, statements and buffers are its nodes.

After Kaufman et al., "A Learned Performance Model for Tensor Processing Units" (MLSys 2021), whose nodes are
a kernel's operations. A CPU's program is made of loops, so they are nodes too, and a statement carries what
decides how fast it runs: its operations, and for each tensor that it touches how far one iteration lies
from the next, how much of it the inner loops touch, and how often they use that again.

Nothing depends on names, nor on the order of declarations. Loops of a single iteration are left out where
they leave no trace in the compiled program. What cannot be known exactly is approximated: indices that are
no sums of loops' multiples, loops that overlap.
"""

import functools
import itertools
import math
import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.sym import Analyzer
from tvm.tirx.analysis import undefined_vars

from costmodels.encodings.index import Form, divided, modulo, plus, times

VERSION = "program/1"

LOOPS = ("serial", "parallel", "vectorized", "unrolled", "thread")  # numbered as TVM does
STATEMENTS = ("fill", "copy", "map", "reduce", "call")
BUFFERS = ("argument", "global", "local")
KINDS = (*LOOPS, *STATEMENTS, *BUFFERS)
RELATIONS = ("contains", "next", "reads", "writes", "within", "previous", "read by", "written by")
"""A loop to what stands in it; a statement to the next, a part of a sequence likewise; a buffer to the
statement that reads it; a statement to the buffer that it writes. Then the same, reversed."""

ARITHMETIC = ("add", "multiply", "divide", "extreme", "root", "transcendental", "integer", "call")
OPERATIONS = (*ARITHMETIC, "compare", "select", "cast", "load")
ANNOTATIONS = (
    *(f"meta_schedule.{what}" for what in ("parallel", "vectorize", "unroll_explicit", "unroll_implicit")),
    *("pragma_auto_unroll_max_step", "pragma_unroll_explicit", "other annotation"),
)
STRIDES = 3  # innermost loops of which strides are told
LEVELS = 4  # innermost loops of which footprints are told
READS = 4  # tensors read by a statement that are described
LINE = 64  # bytes that come together from memory

_LOOP = ("extent", "outside", "inside", "footprint", "depth", *ANNOTATIONS)
_AROUND = ("reduction", "guarded", "repacking")
_STATEMENT = (*OPERATIONS, "executions", *LOOPS, "depth", *_AROUND, "float", "width", "reads")
_ACCESS = (
    "present",
    *(f"stride {n}" for n in range(STRIDES)),
    *(f"constant {n}" for n in range(STRIDES)),
    "contiguous",
    *(f"{what} {n}" for n in (*range(LEVELS), "all") for what in ("footprint", "reuse")),
    "width",
)
_BUFFER = ("bytes", "last", "rank", "float", "width")
_ACCESSES = ("write", *(f"read {n}" for n in range(READS)))

NODE = (
    *(f"loop: {f}" for f in _LOOP),
    *(f"statement: {f}" for f in _STATEMENT),
    *(f"{access}: {f}" for access in _ACCESSES for f in _ACCESS),
    *(f"buffer: {f}" for f in _BUFFER),
)
"""Names of node features; 0 for nodes of another sort."""
KERNEL = (
    *("flop", "executions", "moved", "parallel", "parallel share", "vector share", "code"),
    *(*BUFFERS, "loops", "statements", "buffers", *ANNOTATIONS),
)
"""Names of features of the whole program; those of buffers are bytes."""
NODE_FEATURES, KERNEL_FEATURES = len(NODE), len(KERNEL)


class ProgramGraph(NamedTuple):
    """A program. Every feature is ``log2(1 + x)`` of a number: a count, elements, bytes, a share, or a flag.

    Attributes:
        kinds: Shape [nodes]: of each node its place in ``KINDS``. First loops and statements, in the order
            of the program, then buffers, in the order in which they are first used.
        nodes: Shape [nodes, NODE_FEATURES], named by ``NODE``.
        edges: Shape [2, edges]: from which node to which.
        relations: Shape [edges]: of each edge its place in ``RELATIONS``.
        kernel: Shape [KERNEL_FEATURES], named by ``KERNEL``.
    """

    kinds: NDArray[np.int64]
    nodes: NDArray[np.float32]
    edges: NDArray[np.int64]
    relations: NDArray[np.int64]
    kernel: NDArray[np.float32]


def encode_program(module: tvm.IRModule) -> ProgramGraph:
    """The graph of a module's only function, as ``search.spaces.trace.apply_trace`` schedules it."""
    return _Walk(next(iter(module.functions.values()))).graph()


Access = tuple[int, tuple[Form, ...]]
"""A buffer's number, and its indices, the innermost first."""
_Step = tuple[int, int, int, float]  # dimension, divisor, count, factor: what a loop adds to an index


class _Loop(NamedTuple):
    """A loop around what is visited; of each buffer, how many bytes all its iterations touch."""

    node: int
    kind: int
    extent: int
    footprint: dict[int, float]


class _Around(NamedTuple):
    """What holds of a block's statements; as ``_AROUND``."""

    reduction: bool = False
    guarded: bool = False
    repacking: bool = False


class _Buffer(NamedTuple):
    """Shape and strides are in elements, the innermost first; the width of an element is in bytes."""

    kind: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_float: bool
    width: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.width

    def row(self) -> list[float]:
        return [self.bytes, *(self.shape[:1] or (1,)), len(self.shape), self.is_float, self.width]

    def touched(self, spans: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
        """Elements, and bytes in whole lines, of a region.

        Args:
            spans: Of each dimension, from the first to the last index.
            counts: Of each dimension, how many indices at most.
        """
        elements, run, packed, is_dense = 1.0, 1.0, 1.0, True
        for span, count, size in zip(spans, counts, self.shape, strict=True):
            distinct = min(count, span, size)
            elements *= distinct
            if is_dense:
                width = min(span, size)
                run, packed, is_dense = run * width, packed * distinct, width == size
        lines = min(math.ceil(run * self.width / LINE), packed) * elements / packed
        return elements, lines * LINE


class _Walk:
    """Visits a function once, in the order of the program, and notes what its graph is made of."""

    def __init__(self, function: tirx.PrimFunc) -> None:
        self._arguments = {parameter.id_ for parameter in function.params[:]}
        self._forms: dict[int, Form] = {}  # by the id of a variable
        self._pending: list[Any] = []  # expressions whose operations are still to be counted
        self._views: dict[int, Access] = {}  # parts of other buffers, by the id of a buffer
        self._numbers: dict[int, int] = {}  # of buffers, by their ids
        self._buffers: list[_Buffer] = []
        self._loops: list[_Loop] = []  # around what is visited
        self._around = _Around()
        self._parent = -1  # the loop that nodes are added to
        self._kinds: list[int] = []
        self._rows: tuple[dict[int, list[float]], ...] = ({}, {})  # of loops, of statements
        self._edges: dict[str, list[tuple[int, int]]] = {name: [] for name in RELATIONS[:4]}
        self._totals = dict.fromkeys((*KERNEL, "work"), 0.0)
        self._visit(function.body)

    def graph(self) -> ProgramGraph:
        first_buffer = len(self._kinds)
        kinds = np.array([*self._kinds, *(b.kind for b in self._buffers)], np.int64)
        nodes = np.zeros((len(kinds), NODE_FEATURES), np.float32)
        loops, statements = self._rows
        at = len(_LOOP)
        if loops:
            nodes[list(loops), :at] = list(loops.values())
        if statements:
            nodes[list(statements), at : -len(_BUFFER)] = list(statements.values())
        if self._buffers:
            nodes[first_buffer:, -len(_BUFFER) :] = [b.row() for b in self._buffers]
        pairs = self._edges
        pairs["next"] = sorted({*pairs["next"], *itertools.pairwise(statements)})
        pairs["reads"] = [(first_buffer + b, s) for b, s in pairs["reads"]]
        pairs["writes"] = [(s, first_buffer + b) for s, b in pairs["writes"]]
        forward = np.array([p for some in pairs.values() for p in some]).reshape(-1, 2).T.astype(np.int64)
        relations = np.repeat(np.arange(4), [len(some) for some in pairs.values()])
        return ProgramGraph(
            kinds,
            np.log2(1 + nodes),
            np.concatenate([forward, forward[::-1]], axis=1),
            np.concatenate([relations, relations + 4]),
            np.log2(1 + np.array([self._total()], np.float32)[0]),
        )

    def _total(self) -> list[float]:
        totals = self._totals
        for buffer in self._buffers:
            totals[KINDS[buffer.kind]] += buffer.bytes
        counts = (*map(len, self._rows), len(self._buffers))
        totals.update(zip(("loops", "statements", "buffers"), counts, strict=True))
        for share in ("parallel share", "vector share"):
            totals[share] /= totals["work"] or 1
        return [totals[name] for name in KERNEL]

    def _visit(self, node: Any) -> None:
        kind = type(node)
        if kind is tirx.For:
            self._loop(node)
        elif kind is SBlockRealize:
            self._block(node)
        elif kind is tirx.BufferStore:
            self._statement(node.value, self._access(node.buffer, node.indices[:]))
        elif kind is tirx.SeqStmt:
            self._sequence(node.seq[:])
        elif kind is tirx.IfThenElse:
            around, self._around = self._around, self._around._replace(guarded=True)
            self._pending.append(node.condition)
            self._sequence([n for n in (node.then_case, node.else_case) if n is not None])
            self._around = around
        elif kind is tirx.Evaluate:
            self._statement(node.value, None)
        elif kind is tirx.Bind:
            self._forms[node.var.id_] = self._form(node.value)
        elif kind in (tirx.AttrStmt, tirx.While):
            self._visit(node.body)

    def _sequence(self, children: Iterable[Any]) -> None:
        heads = []
        for child in children:
            head = len(self._kinds)
            self._visit(child)
            if len(self._kinds) > head:
                heads.append(head)
        self._edges["next"] += itertools.pairwise(heads)

    def _node(self, kind: int) -> int:
        node = len(self._kinds)
        self._kinds.append(kind)
        if self._parent >= 0:
            self._edges["contains"].append((self._parent, node))
        return node

    def _loop(self, loop: Any) -> None:
        kind, extent, variable = loop.kind, _extent(loop.extent), loop.loop_var.id_
        notes = _annotations(loop.annotations)
        if extent == 1 and kind in _VANISHING and not any(notes):
            self._forms[variable] = {}
            self._visit(loop.body)
            return
        node, parent, executions = self._node(kind), self._parent, self._totals["executions"]
        outside = math.prod([x.extent for x in self._loops])
        self._forms[variable] = {(node, 1, extent): 1} if extent > 1 else {}
        self._loops.append(_Loop(node, kind, extent, {}))
        self._parent = node
        self._visit(loop.body)
        self._parent = parent
        footprint = sum(self._loops.pop().footprint.values())
        inside = (self._totals["executions"] - executions) / (outside * extent)
        self._rows[0][node] = [extent, outside, inside, footprint, len(self._loops), *notes]

    def _block(self, realize: Any) -> None:
        block, around, loops = realize.block, self._around, self._loops
        is_reduction, reduced = False, set[int]()
        for axis, value in zip(block.iter_vars[:], realize.iter_values[:], strict=True):
            self._forms[axis.var.id_] = form = self._form(value)
            if axis.iter_type == tirx.IterVar.CommReduce:
                is_reduction = True
                reduced.update(loop for loop, _, _ in form)
        for view in block.match_buffers[:]:
            region = view.source
            self._views[view.buffer.id_] = self._access(region.source, [r.min for r in region.region[:]])
        is_guarded = type(realize.predicate) is not tirx.IntImm
        if is_guarded:
            self._pending.append(realize.predicate)
        notes = block.annotations
        is_repacking = "meta_schedule.layout_rewrite_preproc" in notes
        self._around = _Around(is_reduction, is_guarded or around.guarded, is_repacking)
        if not loops:  # the root: what TVM's rules leave for its last steps
            for name, value in zip(ANNOTATIONS, _annotations(notes), strict=True):
                self._totals[name] = max(self._totals[name], value)
        if block.init is not None:
            self._loops = [x for x in loops if x.node not in reduced]
            self._visit(block.init)
            self._loops = loops
        self._visit(block.body)
        self._around = around

    def _statement(self, value: Any, target: Access | None) -> None:
        counts, loads = self._operations(value)
        arithmetic = sum(counts[: len(ARITHMETIC)])
        if target is None:
            kind = "call"
        elif target in loads:
            kind = "reduce"
        elif not loads:
            kind = "fill"
        else:
            kind = "map" if arithmetic else "copy"
        node = self._node(KINDS.index(kind))
        self._edges["reads"] += [(buffer, node) for buffer in dict.fromkeys(b for b, _ in loads)]
        width, is_float, written = 0, False, _ABSENT
        if target is not None:
            self._edges["writes"].append((node, target[0]))
            *_, is_float, width = self._buffers[target[0]]
            written = self._touch(target)
        reads = sorted([self._touch(a) for a in loads if a != target], reverse=True)
        spread = [1] * len(LOOPS)
        for loop in self._loops:
            spread[loop.kind] *= loop.extent
        executions = math.prod(spread)
        row = [*counts, executions, *spread, len(self._loops), *self._around, is_float, width, len(reads)]
        accesses = [written, *reads, *([_ABSENT] * READS)][: 1 + READS]
        self._rows[1][node] = [*row, *itertools.chain.from_iterable(accesses)]
        self._count(executions, arithmetic, spread, sum(a[_WHOLE] for a in (written, *reads)))

    def _count(self, executions: int, arithmetic: int, spread: Sequence[int], moved: float) -> None:
        totals, work = self._totals, executions * (1 + arithmetic)
        _, parallel, vector, unrolled, _ = spread
        totals["flop"] += executions * arithmetic
        totals["executions"] += executions
        totals["moved"] += moved
        totals["code"] += unrolled * (1 + arithmetic)
        totals["work"] += work
        totals["parallel"] = max(totals["parallel"], parallel)
        totals["parallel share"] += work * (parallel > 1)
        totals["vector share"] += work * (vector > 1)

    def _touch(self, access: Access) -> list[float]:
        """Features of an access, as ``_ACCESS``; adds what each loop touches to its footprint."""
        number, forms = access
        buffer = self._buffers[number]
        steps: dict[int, list[_Step]] = defaultdict(list)
        for dimension, form in enumerate(forms):
            for (loop, divisor, count), factor in form.items():
                steps[loop].append((dimension, divisor, count, factor))
        spans, counts = [1.0] * len(forms), [1] * len(forms)
        strides: list[float] = []
        levels: list[float] = []
        iterations, elements, touched = 1, 1.0, float(LINE)
        for node, _, extent, footprint in reversed(self._loops):
            iterations *= extent
            if node in steps:
                for dimension, _, count, factor in steps[node]:
                    spans[dimension] += abs(factor) * (count - 1)
                    counts[dimension] *= count
                elements, touched = buffer.touched(spans, counts)
            footprint[number] = max(footprint.get(number, 0), touched)
            levels += touched, iterations / min(iterations, elements)
            if len(strides) < STRIDES:
                strides.append(_stride(steps[node], buffer.strides))
        levels = levels or [LINE, 1]
        constant = [s == 0 for s in strides]
        absent = [0] * (STRIDES - len(strides))
        within = (levels + levels[-2:] * LEVELS)[: 2 * LEVELS]
        contiguous = strides[:1] == [1]
        return [1, *strides, *absent, *constant, *absent, contiguous, *within, *levels[-2:], buffer.width]

    def _access(self, buffer: Any, indices: Sequence[Any]) -> Access:
        forms = [self._form(i) for i in reversed(indices)]
        if buffer.id_ not in self._views:
            return self._number(buffer), tuple(forms)
        source, base = self._views[buffer.id_]
        return source, tuple(map(plus, base, itertools.chain(forms, itertools.repeat({}))))

    def _number(self, buffer: Any) -> int:
        if (number := self._numbers.get(buffer.id_)) is None:
            self._numbers[buffer.id_] = number = len(self._buffers)
            kind, dtype = buffer.ty, buffer.ty.dtype.dtype
            shape = [_extent(n) for n in reversed(kind.shape[:])]
            strides = [_extent(n) for n in reversed(kind.strides[:])]
            scope = "argument" if buffer.id_ in self._arguments else kind.storage_scope or "global"
            self._buffers.append(
                _Buffer(
                    KINDS.index(scope if scope in BUFFERS else "local"),
                    tuple(shape),
                    tuple(strides or itertools.accumulate([1, *shape[:-1]], operator.mul)),
                    dtype.startswith(("float", "bfloat")),
                    dtype.itemsize,
                )
            )
        return number

    def _operations(self, value: Any) -> tuple[list[int], list[Access]]:
        """How many of ``OPERATIONS`` an expression has, each as often as written, and what it loads."""
        counts = [0] * len(OPERATIONS)
        loads: list[Access] = []
        rest = self._pending
        rest.append(value)
        while rest:
            node = rest.pop()
            kind = type(node)
            name = kind.__name__
            if kind is tvm.ir.TensorLoad:
                counts[_LOAD] += 1
                if (load := self._access(node.source, node.indices[:])) not in loads:
                    loads.append(load)
            elif kind is tvm.ir.Call:
                counts[_COLUMNS.get(getattr(node.op, "name", "").rpartition(".")[2], _CALL)] += 1
                rest += reversed(node.args[:])
            elif kind is tirx.Let:
                self._forms[node.var.id_] = self._form(node.value)
                rest.append(node.body)
            elif name in _COMPARISONS:
                counts[_COMPARE] += 1
                self._form(node.a)  # mostly of indices, whose sums are no work
                self._form(node.b)
            elif name in _OPERANDS:
                if name in _COLUMNS:
                    counts[_COLUMNS[name]] += 1
                rest += [getattr(node, operand) for operand in _OPERANDS[name]]
        return counts, loads

    def _form(self, index: Any) -> Form:
        kind = type(index)
        if kind is tirx.Var:
            return self._forms.get(index.id_, {})
        if kind in (tirx.IntImm, tirx.FloatImm):
            return {}
        if kind in (tirx.Add, tirx.Sub):
            return plus(self._form(index.a), self._form(index.b), 1 if kind is tirx.Add else -1)
        if kind is tirx.Cast:
            return self._form(index.value)
        if kind in _SCALED:
            a, b = index.a, index.b
            if kind is tirx.Mul and type(a) is tirx.IntImm:
                a, b = b, a
            if type(b) is tirx.IntImm:
                return _SCALED[kind](self._form(a), b.value)
        # Whatever it is, it varies with these; what it computes and loads counts for the next statement.
        self._pending.append(index)
        return functools.reduce(plus, [self._forms.get(v.id_, {}) for v in undefined_vars(index)], {})


def _stride(steps: Sequence[_Step], strides: Sequence[int]) -> float:
    """How many elements a loop's next iteration lies away; on average, where most stay where they are."""
    moving = [s for s in steps if s[1] == 1] or steps
    return abs(sum(factor * strides[dimension] / divisor for dimension, divisor, _, factor in moving))


def _extent(expression: Any) -> int:
    """A number of iterations; if it varies, that of the first time."""
    if type(expression) is not tirx.IntImm:
        analyzer = Analyzer()
        for variable in undefined_vars(expression):
            if isinstance(variable.ty, tvm.ir.PrimType):  # and no buffer
                analyzer.bind(variable, tirx.IntImm(variable.ty.dtype, 0))
        expression = analyzer.simplify(expression)
    return max(1, getattr(expression, "value", 1))


def _annotations(notes: Any) -> list[float]:
    """As ``ANNOTATIONS``: the number that each says, 1 if it says no number, 0 if it is not there."""
    if not len(notes):
        return _NO_NOTES
    said = _NO_NOTES.copy()
    for name, value in notes.items():
        said[_NOTES.get(name, -1)] = max(0, value) if isinstance(value, int) else 1
    return said


_NOTES = {name: n for n, name in enumerate(ANNOTATIONS[:-1])}
_NO_NOTES = [0.0] * len(ANNOTATIONS)
_VANISHING = (tirx.ForKind.SERIAL, tirx.ForKind.VECTORIZED, tirx.ForKind.UNROLLED)
_ABSENT = [0.0] * len(_ACCESS)
_WHOLE = _ACCESS.index("footprint all")
_SCALED = {tirx.Mul: times, tirx.FloorDiv: divided, tirx.FloorMod: modulo}
_CALL, _COMPARE, _LOAD = map(OPERATIONS.index, ("call", "compare", "load"))
_COMPARISONS = ("EQ", "NE", "LT", "LE", "GT", "GE")
_COLUMNS = {
    name: OPERATIONS.index(operation)
    for operation, names in {
        "add": "Add Sub",
        "multiply": "Mul",
        "divide": "Div",
        "extreme": "Min Max",
        "root": "sqrt rsqrt",
        "transcendental": "exp exp2 exp10 log log2 log10 log1p pow tanh sigmoid erf sin cos tan atan",
        "integer": "Mod FloorDiv FloorMod LShift RShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot",
        "compare": "And Or Not likely",
        "select": "Select if_then_else",
        "cast": "Cast",
    }.items()
    for name in names.split()
}
"""Of classes of expressions, and of functions that they call: which of ``OPERATIONS`` they are."""
_OPERANDS = {
    **dict.fromkeys([name for name in _COLUMNS if name[0].isupper()], ("b", "a")),
    **dict.fromkeys(("Not", "BitwiseNot"), ("a",)),
    **dict.fromkeys(("Cast", "Broadcast"), ("value",)),
    "Ramp": ("base",),
    "Select": ("false_value", "true_value", "condition"),
}
"""Of classes of expressions: what they are made of, the last first, as the next is taken from the end."""
