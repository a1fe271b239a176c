"""Channels-last layout for the whole graph, and transpositions only where something needs them.

A convolution wants its channels last: the inner loop is then a vector of output channels, which is what CPUs'
vector units want. So each takes its input and leaves its output that way. That the model has its channels
second is kept as a note beside the tensor (``_View``), not computed: operators that do not care about the
order of dimensions work on the tensor as it lies, and a transposition in the model only changes the note.
What does care gets a transposed copy, one for all who ask. The places of an image may be noted as merged,
too: a convolution of 13x13 places by a window of 1x1 is a product of 169 rows, which make better tiles.

TVM's ``ConvertLayout`` does this for some operators and puts two transpositions around each other one, which
keeps it from fusing with its convolution: a hard swish, a clip, a channel shuffle, a layer norm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends import halves
from autotune.frontends.fold import constant, fold_constants, shape_of, static_shape, with_main
from autotune.frontends.geometry import axes_of, moves_nothing
from autotune.frontends.quantized.held import CONVERSIONS
from search.vectors import Vectors

Order = tuple[int, ...]
"""For each dimension of a tensor that is there, the dimension of the model's tensor that it is."""

_GAIN = 0.95  # of the time: for less, reshapes are not worth their calls

ELEMENTWISE = {
    f"relax.{name}"
    for name in (
        "abs", "acos", "acosh", "add", "asin", "asinh", "astype", "atan", "atan2", "atanh",
        "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "ceil", "clip", "cos", "cosh",
        "divide", "equal", "erf", "exp", "floor", "floor_divide", "floor_mod", "greater",
        "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "log", "logical_and",
        "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply",
        "negative", "not_equal", "power", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh",
        "sqrt", "square", "subtract", "tan", "tanh", "trunc", "where", "nn.gelu", "nn.gelu_tanh",
        "nn.leakyrelu", "nn.relu", "nn.relu6", "nn.selu", "nn.silu", "nn.softplus",
    )
}  # fmt: skip
_STATISTICS = {f"relax.{name}" for name in ("max", "mean", "min", "prod", "std", "sum", "variance")}
_ALONG_ONE_AXIS = {"relax.nn.log_softmax", "relax.nn.prelu", "relax.nn.softmax"}
_RESHAPES = {"relax.expand_dims", "relax.flatten", "relax.reshape", "relax.squeeze"}
_CONVOLUTIONS = {f"relax.nn.conv{n}d" for n in (1, 2, 3)}
_IMAGES = {"relax.image.resize2d"} | {
    f"relax.nn.{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg") for n in (1, 2, 3)
}


@dataclass(frozen=True)
class _View:
    """A tensor of the model, and the one that is there for it, with its dimensions in this order.

    Attributes:
        merged: The shape that it would have, if all dimensions but the innermost are one instead.
    """

    tensor: Any
    order: Order
    merged: tuple[int, ...] = ()

    def place(self, axis: int) -> int:
        """Where an axis of the model's tensor lies; negative ones count from the end."""
        return self.order.index(axis % len(self.order))


Rule = Callable[..., _View | tuple[_View, ...] | None]


@mutator
class _ChannelsLast(PyExprMutator):  # type: ignore[misc]
    """Rewrites ``main``. A rule takes a call of the model and gives what is there for its result, or None."""

    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self._target = target
        self._views: dict[Any, _View] = {}
        self._tuples: dict[Any, tuple[_View, ...]] = {}
        self._copies: dict[tuple[Any, Order], Any] = {}

    def visit_dataflow_block_(self, block: Any) -> Any:
        self._copies.clear()  # they are variables of the block before
        return super().visit_dataflow_block_(block)

    def visit_var_binding_(self, binding: Any) -> None:
        view = self._view(binding.value)
        if view is None:
            super().visit_var_binding_(binding)
        elif isinstance(view, tuple):
            self._tuples[binding.var] = view
        elif isinstance(binding.var, relax.DataflowVar):
            self._views[binding.var] = view
        else:  # an output
            super().visit_var_binding_(relax.VarBinding(binding.var, self._ordered(view, _natural(view))))

    def visit_dataflow_var_(self, var: Any) -> Any:
        if (parts := self._tuples.get(var)) is not None:
            return relax.Tuple([self._ordered(part, _natural(part)) for part in parts])
        if (view := self._views.get(var)) is not None:
            return self._ordered(view, _natural(view))
        return super().visit_dataflow_var_(var)

    def _view(self, value: Any) -> _View | tuple[_View, ...] | None:
        if isinstance(value, relax.TupleGetItem) and (parts := self._tuples.get(value.tuple_value)):
            return parts[int(value.index)]
        if not isinstance(value, relax.Call) or None in map(static_shape, _tensors(value.ty)):
            return None
        name = str(getattr(value.op, "name", ""))
        rule: Rule | None = next((rule for names, rule in self._RULES if name in names), None)
        return rule(self, value) if rule else None

    # Rules

    def _convolution(self, call: Any) -> _View | None:
        rank = len(shape_of(call))
        spatial = "DHW"[5 - rank :]
        if call.attrs.data_layout != f"NC{spatial}" or call.attrs.kernel_layout != f"OI{spatial}":
            return None
        if self._is_product(call):
            order, (*places, _) = _last(rank), (shape_of(call)[o] for o in _last(rank))
            weight = self._get(call.args[1], (*range(2, rank), 1, 0))
            matrix = relax.op.reshape(weight, shape_of(call.args[1])[1::-1])
            product = relax.op.matmul(self._merged(call.args[0], order), self.builder_.emit(matrix))
            return _View(self.builder_.emit(product), order, (*places, shape_of(call)[1]))
        x = self._get(call.args[0], _last(rank))
        weight = self._get(call.args[1], (*range(2, rank), 1, 0))
        attrs = _changed(
            call.attrs,
            data_layout=f"N{spatial}C", out_layout=f"N{spatial}C", kernel_layout=f"{spatial}IO",
        )  # fmt: skip
        return self._made(call, [x, weight], attrs, _last(rank))

    def _is_product(self, call: Any) -> bool:
        """Whether a convolution is a product of matrices whose tiles are better than those of a line."""
        attrs, weight, (images, channels, *extents) = call.attrs, constant(call.args[1]), shape_of(call)
        plain = {*shape_of(call.args[1])[2:], *map(int, attrs.strides), int(attrs.groups)} == {1}
        if weight is None or len(extents) < 2 or not plain or any(map(int, attrs.padding)):
            return False
        vectors = Vectors.of(self._target, str(call.ty.dtype))
        blocks = -(-channels // vectors.lanes)
        height, width = extents[-2:]
        if halves.pay(self._target, weight.reshape(channels, -1).T, images * math.prod(extents)):
            return True
        whole = vectors.price(images * math.prod(extents), blocks)
        return whole < _GAIN * vectors.price(width, blocks, height)

    def _image(self, call: Any) -> _View | None:
        rank = len(shape_of(call))
        spatial = "DHW"[5 - rank :]
        if call.attrs.layout != f"NC{spatial}" or self._known(call.args[0]) is None:
            return None
        # Pooling has a layout for its output besides.
        layouts = {n: f"N{spatial}C" for n in ("layout", "out_layout") if hasattr(call.attrs, n)}
        x = self._get(call.args[0], _last(rank))
        return self._made(call, [x, *call.args[1:]], _changed(call.attrs, **layouts), _last(rank))

    def _elementwise(self, call: Any) -> _View | None:
        shape = shape_of(call)
        views = [v for a in call.args if shape_of(a) == shape and (v := self._views.get(a))]
        if not views:
            return None
        lead = next((v for v in views if v.merged), views[0])
        order = lead.order
        if lead.merged and all(_is_flat(a, shape, order) for a in call.args):
            made = self._made(call, [self._merged(a, order) for a in call.args], call.attrs, order)
            return replace(made, merged=lead.merged)
        return self._made(call, [self._broadcast(a, order) for a in call.args], call.attrs, order)

    def _transposition(self, call: Any) -> _View | None:
        if constant(call.args[0]) is not None:
            return None
        view = self._known(call.args[0]) or _View(self.visit_expr(call.args[0]), _natural(call.args[0]))
        turned = axes_of(call)
        return _View(view.tensor, tuple(turned.index(o) for o in view.order))

    def _bytes(self, call: Any) -> _View | None:
        """Numbers that become bytes, or come from them, all by the same scale."""
        view = self._known(call.args[0])
        if view is None or any(math.prod(shape_of(a)) > 1 for a in call.args[1:]):
            return None
        return self._made(call, [view.tensor, *call.args[1:]], call.attrs, view.order)

    def _statistic(self, call: Any) -> _View | None:
        view, axes = self._known(call.args[0]), call.attrs.axis
        if view is None or axes is None:
            return None
        reduced = {int(a) % len(view.order) for a in axes}
        attrs = _changed(call.attrs, axis=sorted(view.order.index(a) for a in reduced))
        kept = view.order if call.attrs.keepdims else _ranks([o for o in view.order if o not in reduced])
        return self._made(call, [view.tensor], attrs, kept)

    def _along_one_axis(self, call: Any) -> _View | None:
        view = self._known(call.args[0])
        if view is None:
            return None
        attrs = _changed(call.attrs, axis=view.place(int(call.attrs.axis)))
        return self._made(call, [view.tensor, *map(self.visit_expr, call.args[1:])], attrs, view.order)

    def _layer_norm(self, call: Any) -> _View | None:
        """If the axes lie in the order of the scale's and shift's."""
        view = self._known(call.args[0])
        places = [view.place(int(a)) for a in call.attrs.axes] if view else []
        if view is None or places != sorted(places):
            return None
        arguments = [view.tensor, *map(self.visit_expr, call.args[1:])]
        return self._made(call, arguments, _changed(call.attrs, axes=places), view.order)

    def _concatenation(self, call: Any) -> _View | None:
        joined = call.args[0]
        parts = list(joined.fields) if isinstance(joined, relax.Tuple) else []
        view = next((v for v in map(self._known, parts) if v), None)
        if view is None or call.attrs.axis is None:
            return None
        tensors = relax.Tuple([self._get(part, view.order) for part in parts])
        attrs = _changed(call.attrs, axis=view.place(int(call.attrs.axis)))
        return self._made(call, [tensors], attrs, view.order)

    def _split(self, call: Any) -> tuple[_View, ...] | None:
        view = self._known(call.args[0])
        if view is None:
            return None
        attrs = _changed(call.attrs, axis=view.place(int(call.attrs.axis)))
        made = self._made(call, [view.tensor], attrs, view.order).tensor
        parts = [self.builder_.emit(relax.TupleGetItem(made, n)) for n in range(len(call.ty.fields))]
        return tuple(_View(part, view.order) for part in parts)

    def _slice(self, call: Any) -> _View | None:
        view = self._known(call.args[0])
        if view is None or not isinstance(call.args[1], relax.Tuple):
            return None
        axes = relax.Tuple([tvm.tirx.IntImm("int64", view.place(int(a))) for a in call.args[1].fields])
        return self._made(call, [view.tensor, axes, *call.args[2:]], call.attrs, view.order)

    def _take(self, call: Any) -> _View | None:
        """One of an axis, or some."""
        view, rank = self._known(call.args[0]), len(shape_of(call.args[1]))
        if view is None or call.attrs.axis is None or rank > 1:
            return None
        axis = int(call.attrs.axis) % len(view.order)
        order = view.order if rank else _ranks([o for o in view.order if o != axis])
        arguments = [view.tensor, self.visit_expr(call.args[1])]
        return self._made(call, arguments, _changed(call.attrs, axis=view.place(axis)), order)

    def _padding(self, call: Any) -> _View | None:
        view = self._known(call.args[0])
        if view is None:
            return None
        widths = [int(w) for w in call.attrs.pad_width]
        moved = [w for o in view.order for w in widths[2 * o : 2 * o + 2]]
        attrs = _changed(call.attrs, pad_width=moved)
        return self._made(call, [view.tensor, *call.args[1:]], attrs, view.order)

    def _product(self, call: Any) -> _View | None:
        """By a matrix, if the dimension that is summed over lies innermost, and there are no fewer rows."""
        view = self._known(call.args[0])
        if view is None or view.order[-1] != len(view.order) - 1 or len(shape_of(call.args[1])) != 2:
            return None
        if shape_of(view.tensor)[-2] < shape_of(call)[-2]:
            return None
        return self._made(call, [view.tensor, self.visit_expr(call.args[1])], call.attrs, view.order)

    def _reshape(self, call: Any) -> _View | None:
        """Dimensions split, and merged where they lie beside each other; else they are brought there."""
        view = self._known(call.args[0])
        groups = _groups(shape_of(call.args[0]), shape_of(call)) if view else None
        if view is None or groups is None:
            return None
        # The innermost stays so: vectors are along it. All else goes back to the model's order if it must.
        named = [o for o in view.order if any(o in before for before, _ in groups)]
        if _flat(sorted((b for b, _ in groups), key=lambda b: named.index(b[0]))) != named:
            inner = next((g for g in groups if named[-1] in g[0]), None)
            groups = [*(g for g in groups if g is not inner), *([inner] if inner else [])]
            if groups == sorted(groups):
                return None
        else:
            groups = sorted(groups, key=lambda g: named.index(g[0][0]))
        units = [n for n in range(len(view.order)) if n not in named]
        x = self._get(call.args[0], (*units, *_flat([b for b, _ in groups])))
        after = _flat([a for _, a in groups])
        order = (*(n for n in range(len(shape_of(call))) if n not in after), *after)
        return _View(self.builder_.emit(relax.op.reshape(x, [shape_of(call)[o] for o in order])), order)

    _RULES: ClassVar[list[tuple[set[str], Rule]]] = [
        (_CONVOLUTIONS, _convolution),
        (_IMAGES, _image),
        (ELEMENTWISE, _elementwise),
        (CONVERSIONS, _bytes),
        ({"relax.permute_dims"}, _transposition),
        (_STATISTICS, _statistic),
        (_ALONG_ONE_AXIS, _along_one_axis),
        ({"relax.nn.layer_norm"}, _layer_norm),
        ({"relax.concat"}, _concatenation),
        ({"relax.split"}, _split),
        ({"relax.strided_slice"}, _slice),
        ({"relax.take"}, _take),
        ({"relax.nn.pad"}, _padding),
        ({"relax.matmul"}, _product),
        (_RESHAPES, _reshape),
    ]

    # What rules are made of

    def _known(self, expr: Any) -> _View | None:
        view = self._views.get(expr) if isinstance(expr, relax.Var) else None
        return self._parted(view) if view else None

    def _parted(self, view: _View) -> _View:
        """The same, with each dimension on its own."""
        if not view.merged:
            return view
        key = (view.tensor, view.order)
        if key not in self._copies:
            self._copies[key] = self.builder_.emit(relax.op.reshape(view.tensor, view.merged))
        return _View(self._copies[key], view.order)

    def _merged(self, expr: Any, order: Order) -> Any:
        """An argument with all its dimensions but the innermost as one."""
        view = self._views.get(expr) if isinstance(expr, relax.Var) else None
        if view and view.merged and view.order == order:
            return view.tensor
        wide = self._broadcast(expr, order)
        if not (shape := shape_of(expr)):
            return wide
        inner = ((1,) * (len(order) - len(shape)) + shape)[order[-1]]
        flat = (math.prod(shape) // inner, inner)
        if (value := constant(wide)) is not None:
            return relax.const(value.reshape(flat), str(value.dtype))
        return self.builder_.emit(relax.op.reshape(wide, flat))

    def _made(self, call: Any, arguments: Sequence[Any], attrs: Any, order: Order) -> _View:
        return _View(self.builder_.emit(relax.Call(call.op, list(arguments), attrs, call.ty_args)), order)

    def _get(self, expr: Any, order: Order) -> Any:
        """A tensor of the model with its dimensions in this order."""
        if (value := constant(expr)) is not None:
            return relax.const(np.ascontiguousarray(value.transpose(order)), str(value.dtype))
        return self._ordered(self._known(expr) or _View(self.visit_expr(expr), _natural(expr)), order)

    def _ordered(self, view: _View, order: Order) -> Any:
        view = self._parted(view)
        if view.order == order:
            return view.tensor
        key = (view.tensor, order)
        if key not in self._copies:
            self._copies[key] = self.builder_.emit(_transposed(view, order))
        return self._copies[key]

    def _broadcast(self, expr: Any, order: Order) -> Any:
        """An argument of an operator whose result has its dimensions in this order."""
        if not isinstance(expr.ty, relax.TensorType):
            return self.visit_expr(expr)
        shape = shape_of(expr)
        missing = len(order) - len(shape)
        if not shape or not missing:
            return self._get(expr, order) if shape else self.visit_expr(expr)
        if (value := constant(expr)) is not None:
            wide = value.reshape((1,) * missing + shape)
            return relax.const(np.ascontiguousarray(wide.transpose(order)), str(value.dtype))
        wide = self.builder_.emit(relax.op.reshape(self.visit_expr(expr), (1,) * missing + shape))
        return self._ordered(_View(wide, tuple(range(len(order)))), order)


def _is_flat(expr: Any, shape: Sequence[int], order: Order) -> bool:
    """Whether an argument has all of these dimensions, or at most the innermost."""
    own = shape_of(expr)
    wide = (1,) * (len(shape) - len(own)) + own
    return wide == tuple(shape) or all(wide[o] == 1 for o in order[:-1])


def _natural(tensor: Any) -> Order:
    return tuple(range(len(tensor.order) if isinstance(tensor, _View) else len(shape_of(tensor))))


def _last(rank: int) -> Order:
    """Channels last, of a tensor that has them second."""
    return (0, *range(2, rank), 1)


def _tensors(kind: Any) -> list[Any]:
    return list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]


def _ranks(values: Sequence[int]) -> Order:
    return tuple(sorted(values).index(v) for v in values)


def _flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [n for inner in lists for n in inner]


def _changed(attrs: Any, **fields: Any) -> Any:
    """The same attributes but for some."""
    about = type(attrs).__tvm_ffi_type_info__
    return tvm.ir.make_node(about.type_key, **{f.name: getattr(attrs, f.name) for f in about.fields} | fields)


def _transposed(view: _View, order: Order) -> Any:
    """The tensor that is there in another order; where only dimensions of extent 1 move, nothing does."""
    shape, axes = shape_of(view.tensor), [view.order.index(o) for o in order]
    if moves_nothing(shape, axes):
        return relax.op.reshape(view.tensor, [shape[a] for a in axes])
    return relax.op.permute_dims(view.tensor, axes)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Which dimensions a reshape makes of which, those of extent 1 left out; None for an empty tensor."""
    if 0 in before:
        return None
    groups: list[tuple[list[int], list[int]]] = []
    left, right = ([n for n, d in enumerate(shape) if d > 1] for shape in (before, after))
    while left and right:
        ours, theirs = [left.pop(0)], [right.pop(0)]
        a, b = before[ours[0]], after[theirs[0]]
        while a != b:
            if a < b:
                ours.append(left.pop(0))
                a *= before[ours[-1]]
            else:
                theirs.append(right.pop(0))
                b *= after[theirs[-1]]
        groups.append((ours, theirs))
    return groups


def to_channels_last(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Moves convolutions to channels-last, and what lies between them; weights are transposed at once."""
    main = _ChannelsLast(module, target).visit_expr(module["main"])
    return fold_constants(with_main(module, main))
