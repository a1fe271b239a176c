"""Tensors that only choose and order the elements of others, to be read where those are."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import relax, te, tirx, topi

from autotune.frontends.fold import Bindings, number_of, operator_of, shape_of
from autotune.frontends.geometry import axes_of, slice_of

Step = Callable[[te.Tensor], te.Tensor]

_RESHAPES = {"relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.broadcast_to"}
SCALES: dict[str, Callable[[Any, Any], Any]] = {
    "relax.multiply": lambda a, b: a * b,
    "relax.divide": lambda a, b: a / b,
}
"""By how a number may change the elements of a view."""


@dataclass(frozen=True)
class View:
    """A tensor: a variable or constant, and what chooses and orders its elements, the first step first."""

    source: Any
    steps: tuple[Step, ...] = ()

    def of(self, x: te.Tensor) -> te.Tensor:
        """The tensor, of its source."""
        for step in self.steps:
            x = step(x)
        return x


def view(bindings: Bindings, expr: Any, scaled: bool = False, swapped: bool = False) -> View:
    """Where a tensor is read.

    Args:
        scaled: Elements may be multiplied by a number as well.
        swapped: The last two axes may be swapped once; otherwise what lies together stays so.
    """
    steps = list[Step]()
    while isinstance(expr, relax.Var) and (value := bindings.of.get(expr)) is not None:
        name = operator_of(value)
        if name == "relax.permute_dims" and not keeps_last(value):
            if not swapped:
                break
            swapped = False
        if (name in SCALES and not scaled) or (found := _step(bindings, expr, value)) is None:
            break
        expr, step = found
        steps.append(step)
    return View(expr, tuple(reversed(steps)))


def is_reshape(value: Any) -> bool:
    """Whether a call leaves all elements in their order."""
    if operator_of(value) not in _RESHAPES or not shape_of(value):
        return False
    return math.prod(shape_of(value)) == math.prod(shape_of(value.args[0]))


def keeps_rows(value: Any) -> bool:
    """Whether a call merges or parts outer dimensions only."""
    return is_reshape(value) and shape_of(value)[-2:] == shape_of(value.args[0])[-2:]


def keeps_last(call: Any) -> bool:
    """Whether a transposition leaves the last axis where it is."""
    return axes_of(call)[-1] == len(shape_of(call)) - 1


def _step(bindings: Bindings, result: Any, value: Any) -> tuple[Any, Step] | None:
    """What a value is of, and what it does to that; None where it does more than a view may."""
    shape = shape_of(result)
    if isinstance(value, relax.TupleGetItem):
        return _part_of_split(bindings.of.get(value.tuple_value), int(value.index), shape)
    if not isinstance(value, relax.Call) or not shape:
        return None
    if is_reshape(value):
        step: Step | None = lambda x: topi.reshape(x, shape)  # noqa: E731
    else:
        match operator_of(value):
            case "relax.permute_dims":
                step = lambda x: topi.transpose(x, axes_of(value))  # noqa: E731
            case "relax.strided_slice":
                step = None if (begins := slice_of(value)) is None else _cut(shape, begins)
            case "relax.take":
                step = _take(value, shape)
            case name if name in SCALES:
                step = _scale(value, shape)
            case _:
                step = None
    return None if step is None else (value.args[0], step)


def _part_of_split(split: Any, index: int, shape: tuple[int, ...]) -> tuple[Any, Step] | None:
    if operator_of(split) != "relax.split":
        return None
    axis = int(split.attrs.axis) % len(shape)
    begin = sum(int(part.shape.values[axis]) for part in split.ty.fields[:index])
    return split.args[0], _cut(shape, {axis: begin})


def _take(call: Any, shape: tuple[int, ...]) -> Step | None:
    source, place = shape_of(call.args[0]), number_of(call.args[1])
    if place is None or call.attrs.axis is None:
        return None
    axis = int(call.attrs.axis) % len(source)
    at = int(place) % source[axis]
    return lambda x: te.compute(shape, lambda *i: x(*i[:axis], at, *i[axis:]))


def _scale(call: Any, shape: tuple[int, ...]) -> Step | None:
    factor, change = number_of(call.args[1]), SCALES[operator_of(call)]
    if factor is None:
        return None
    return lambda x: te.compute(shape, lambda *i: change(x(*i), tirx.const(factor, x.dtype)))


def _cut(shape: tuple[int, ...], begins: Mapping[int, int]) -> Step:
    """The part of a tensor from the given places along some axes."""

    def part(x: te.Tensor) -> te.Tensor:
        return te.compute(shape, lambda *i: x(*(at + begins.get(axis, 0) for axis, at in enumerate(i))))

    return part
