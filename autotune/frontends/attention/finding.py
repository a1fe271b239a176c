"""Attention in what frameworks and their exporters write."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from autotune.frontends.attention.views import SCALES, View, keeps_last, keeps_rows, view
from autotune.frontends.fold import Bindings, constant, number_of, operator_of, shape_of
from autotune.frontends.geometry import axes_of

CHANGES: dict[str, Callable[..., Any]] = {
    **SCALES,
    "relax.add": lambda a, b: a + b,
    "relax.subtract": lambda a, b: a - b,
    "relax.where": tirx.Select,
}
"""What may happen to a score on its way to softmax."""

_LEAST_ROWS = 4  # of queries: for fewer, packing keys moves more than it saves
_MOST_KEYS = 8192  # whose scores a core's caches hold, for some rows
_LEAST_LANES = 4
_GUARD = (
    "relax.logical_not", "relax.astype", "relax.max", "relax.astype", "relax.logical_not", "relax.equal",
)  # fmt: skip
"""How PyTorch's exporter asks whether all scores of a row are minus infinity."""


@dataclass(frozen=True)
class Change:
    """What happens to scores element by element: a call, the place of the scores among its arguments."""

    call: Any
    place: int

    @property
    def others(self) -> list[Any]:
        """The other arguments that are no single numbers."""
        return [a for n, a in enumerate(self.call.args) if n != self.place and number_of(a) is None]


@dataclass(frozen=True)
class Attention:
    """Attention as it was found.

    Attributes:
        queries: Elements of shape [..., rows, depth]; ``keys`` [..., depth, keys]; ``values`` [..., keys,
            width].
        changes: What happens between the first product and softmax, the first first.
        safe: A row of scores that are all minus infinity comes out as zeros; without, as NaN.
        depth: Of queries and keys.
        columns: Keys.
        shape: Of the result, [*heads, rows, width].
        order: How the result's axes follow each other in the end.
    """

    queries: View
    keys: View
    values: View
    changes: tuple[Change, ...]
    safe: bool
    depth: int
    columns: int
    shape: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def operands(self) -> list[View]:
        """All that the kernel reads."""
        others = [View(o) for change in self.changes for o in change.others]
        return [self.queries, self.keys, self.values, *others]


def find(function: Any) -> Iterator[tuple[Any, Attention]]:
    """The variable of each result of attention, with what it is the result of."""
    bindings = Bindings(function)
    finder = _Finder(bindings)
    for variable, call in bindings.of.items():
        if operator_of(call) == "relax.matmul" and (found := finder.ending_with(variable, call)):
            yield found


class _Finder:
    """Follows attention from its last product back to its operands."""

    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings

    def ending_with(self, variable: Any, mix: Any) -> tuple[Any, Attention] | None:
        """The attention whose last product this is, and the variable of its result."""
        weights = self._bindings.own(mix.args[0])
        while keeps_rows(weights):
            weights = self._bindings.own(weights.args[0])
        guarded = self._guarded(weights)
        softmax = weights if guarded is None else guarded
        if operator_of(softmax) != "relax.nn.softmax":
            return None
        last = len(shape_of(softmax)) - 1
        scores = self._scores(softmax.args[0], readers=1 if guarded is None else 2)
        if int(softmax.attrs.axis) not in (-1, last) or scores is None or not _fits(scores[0], mix):
            return None
        product, changes = scores
        result, shape, order = self._ordered(variable, shape_of(mix))
        queries = view(self._bindings, product.args[0], scaled=True)
        keys = view(self._bindings, product.args[1], scaled=True, swapped=True)
        values = view(self._bindings, mix.args[1])
        depth, columns = shape_of(product.args[1])[-2:]
        found = Attention(queries, keys, values, changes, guarded is not None, depth, columns, shape, order)
        return result, found

    def _guarded(self, call: Any) -> Any:
        """The softmax whose rows a call replaces by zeros where all scores are minus infinity."""
        if operator_of(call) != "relax.where":
            return None
        condition, zeros, softmax = (
            self._bindings.own(a, readers) for a, readers in zip(call.args, (1, 1, 2), strict=True)
        )
        if operator_of(softmax) != "relax.nn.softmax" or operator_of(zeros) != "relax.full_like":
            return None
        for name in _GUARD[:-1]:
            if operator_of(condition) != name:
                return None
            condition = self._bindings.own(condition.args[0])
        if operator_of(condition) != _GUARD[-1] or not condition.args[0].same_as(softmax.args[0]):
            return None
        alike = number_of(condition.args[1]) == -math.inf and number_of(zeros.args[1]) == 0
        return softmax if alike else None

    def _scores(self, expr: Any, readers: int = 1) -> tuple[Any, tuple[Change, ...]] | None:
        """The product that a tensor follows from element by element, and how."""
        call = self._bindings.own(expr, readers)
        if operator_of(call) == "relax.matmul":
            return call, ()
        if keeps_rows(call):
            return self._scores(call.args[0])
        for place, argument in enumerate(call.args if operator_of(call) in CHANGES else ()):
            if shape_of(argument) == shape_of(call) and (found := self._scores(argument)) is not None:
                product, changes = found
                return product, (*changes, Change(call, place))
        return None

    def _ordered(self, result: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
        """Follows a result through what parts its heads, then orders its axes, its channels staying last."""
        order = plain = tuple(range(len(shape)))
        while len(readers := self._bindings.readers[result]) == 1:
            (variable, call), *_ = readers
            if variable is None:
                break
            if order == plain and keeps_rows(call):
                shape = shape_of(call)
                order = plain = tuple(range(len(shape)))
            elif operator_of(call) == "relax.permute_dims" and keeps_last(call):
                order = tuple(order[axis] for axis in axes_of(call))
            else:
                break
            result = variable
        return result, shape, order


def _fits(product: Any, mix: Any) -> bool:
    """Whether the template has tiles for two products, of tensors that are both computed."""
    operands = [*product.args, mix.args[1]]
    shapes = [shape_of(a) for a in operands]
    if any(
        constant(a) is not None or str(a.ty.dtype) != "float32" or len(s) < 3
        for a, s in zip(operands, shapes, strict=True)
    ):
        return False
    left, right, values = shapes
    heads = {math.prod(s[:-2]) for s in (left, right, values, shape_of(mix))}
    return (
        len(heads) == 1
        and left[-2] >= _LEAST_ROWS
        and right[-1] <= _MOST_KEYS
        and values[-1] % _LEAST_LANES == 0
    )
