"""Convolutions and matrix products that share their input, as one.

Inception's modules begin with three 1x1 convolutions of the same image, attention with three products of the
same matrix. As one kernel they read it once, by halves take it apart once, fill vectors and tiles together,
and wake the other cores once. What follows reads its channels out of those of all, where they are.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import Bindings, constant, operator_of, shape_of, tidied, with_main
from autotune.frontends.layout import ELEMENTWISE

_SUMS = {"relax.nn.conv2d": (0, -3), "relax.matmul": (-1, -1)}
"""By operator: the axis of output channels of its weights, and of its result."""

_Readers = Mapping[Any, list[tuple[Any, Any]]]
"""As of ``Bindings``."""

_COPIES = {"relax.concat", "relax.permute_dims"}
_LEAST_CHANNELS = 4  # of a convolution: one of fewer may become a product, whose weights are not packed


@dataclass(frozen=True)
class _Branch:
    """A convolution or product, what follows it element by element, and the variable of the last result."""

    calls: tuple[Any, ...]
    end: Any

    @property
    def channels(self) -> int:
        return shape_of(self.calls[0])[self.axis]

    @property
    def axis(self) -> int:
        return _SUMS[operator_of(self.calls[0])][1]

    def joins(self, other: "_Branch") -> bool:
        """Whether both can be one: all is alike but their constants."""
        pairs = zip(self.calls, other.calls, strict=False)
        return len(self.calls) == len(other.calls) and all(_are_alike(*pair, self.axis) for pair in pairs)


@dataclass
class _Group:
    """Branches of one tensor; ``joined`` is the variable of what they are together, once there is one."""

    branches: list[_Branch]
    joined: Any = field(default=None)

    @property
    def parts(self) -> Iterator[tuple[Any, tuple[int, int]]]:
        """The variable of each branch's result, and where its channels of the whole begin and end."""
        ends = itertools.accumulate((b.channels for b in self.branches), initial=0)
        return zip((b.end for b in self.branches), itertools.pairwise(ends), strict=True)


@mutator
class _Merger(PyExprMutator):  # type: ignore[misc]
    """Replaces the result of each branch by its channels of the whole."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._parts = {end: (group, *part) for group in _groups(module["main"]) for end, part in group.parts}

    def visit_var_binding_(self, binding: Any) -> None:
        if (found := self._parts.get(binding.var)) is not None:
            group, begin, end = found
            if group.joined is None:
                group.joined = self._join(group.branches)
            axis = group.branches[0].axis % len(shape_of(binding.var))
            part = relax.op.strided_slice(group.joined, [axis], [begin], [end])
            binding = relax.VarBinding(binding.var, part)
        super().visit_var_binding_(binding)

    def _join(self, branches: list[_Branch]) -> Any:
        result, of_results = self.visit_expr(branches[0].calls[0].args[0]), branches[0].axis
        for calls in zip(*(b.calls for b in branches), strict=True):
            first, arguments = calls[0], []
            for of_each in zip(*(call.args for call in calls), strict=True):
                if isinstance(of_each[0], relax.Var):
                    arguments.append(result)
                elif (axis := _channels(first, of_each[0], of_results)) is None:
                    arguments.append(of_each[0])
                else:
                    together = np.concatenate([constant(c) for c in of_each], axis=axis)
                    arguments.append(relax.const(together, str(together.dtype)))
            result = self.builder_.emit(relax.Call(first.op, arguments, first.attrs, first.ty_args))
        return result


def _groups(function: Any) -> Iterator[_Group]:
    """Branches that can be one."""
    bindings, found = Bindings(function), list[_Group]()
    readers = bindings.readers
    for variable, call in bindings.of.items():
        if (branch := _branch(readers, variable, call)) is None:
            continue
        same = (g for g in found if g.branches[0].calls[0].args[0].same_as(call.args[0]))
        if group := next((g for g in same if g.branches[0].joins(branch)), None):
            group.branches.append(branch)
        else:
            found.append(_Group([branch]))
    for group in found:
        behind = {variable for b in group.branches for variable, _ in readers[b.end]}
        if len(group.branches) > 1 and len(behind) > 1:
            yield group


def _branch(readers: _Readers, variable: Any, call: Any) -> _Branch | None:
    """The one that begins with a call; None where it does not, or what follows needs its own tensor."""
    if not _is_sum(call):
        return None
    calls = [call]
    while len(behind := readers[variable]) == 1 and _follows(calls[0], behind[0][1]):
        variable, call = behind[0]
        calls.append(call)
    in_place = all(_reads_in_place(*reader, variable, readers) for reader in behind)
    return _Branch(tuple(calls), variable) if in_place else None


def _is_sum(call: Any) -> bool:
    """Whether a call is a convolution or product of a tensor and of weights that are known."""
    if operator_of(call) not in _SUMS or not isinstance(call.args[0], relax.Var) or not shape_of(call):
        return False
    weight, attrs = constant(call.args[1]), call.attrs
    if weight is None or weight.dtype != np.float32:
        return False
    if operator_of(call) == "relax.matmul":
        return weight.ndim == 2
    return int(attrs.groups) == 1 and attrs.data_layout == "NCHW" and attrs.kernel_layout == "OIHW"


def _follows(first: Any, call: Any) -> bool:
    """Whether a call changes what begins with a sum element by element, with constants of channels."""
    if (
        operator_of(call) not in ELEMENTWISE
        or shape_of(call) != shape_of(first)
        or call.ty.dtype != first.ty.dtype
    ):
        return False
    axis = _SUMS[operator_of(first)][1]
    variables = [a for a in call.args if isinstance(a, relax.Var)]
    constants = [c for a in call.args if (c := constant(a)) is not None]
    of_channels = (c.ndim >= -axis and c.size == c.shape[axis] == shape_of(first)[axis] for c in constants)
    return len(variables) == 1 and all(
        c.size == 1 or one for c, one in zip(constants, of_channels, strict=True)
    )


def _reads_in_place(reader: Any, call: Any, variable: Any, readers: _Readers) -> bool:
    """Whether a call reads some channels of a tensor as well as a tensor of its own.

    What copies anyhow does, also after a reshape, and convolutions whose weights will be packed.
    """
    if reader is None:
        return False
    if operator_of(call) == "relax.reshape":
        return bool(behind := readers[reader]) and all(operator_of(value) in _COPIES for _, value in behind)
    if operator_of(call) == "relax.nn.conv2d":
        return _is_sum(call) and call.args[0].same_as(variable) and shape_of(call)[1] >= _LEAST_CHANNELS
    return operator_of(call) in _COPIES


def _channels(call: Any, argument: Any, axis: int) -> int | None:
    """The axis of channels of a constant argument; None where it is of all channels."""
    value = constant(argument)
    if value is None or (value.size == 1 and operator_of(call) not in _SUMS):
        return None
    return _SUMS[operator_of(call)][0] if operator_of(call) in _SUMS else axis


def _are_alike(one: Any, other: Any, axis: int) -> bool:
    """Whether two calls are of one operator, with arguments that differ at most from channel to channel."""
    return (
        one.op.same_as(other.op)
        and tvm_ffi.structural_equal(one.attrs, other.attrs)
        and [_kind(one, a, axis) for a in one.args] == [_kind(other, a, axis) for a in other.args]
    )


def _kind(call: Any, argument: Any, axis: int) -> tuple[Any, ...]:
    """What an argument has to have in common with another: its extents but for channels, or its value."""
    if isinstance(argument, relax.Var):
        return ("tensor",)
    if (of_channels := _channels(call, argument, axis)) is None:
        value = constant(argument)
        return ("value", tvm_ffi.structural_hash(argument) if value is None else value.item())
    shape = list(shape_of(argument))
    shape[of_channels] = 0
    return ("channels", *shape)


def merge_branches(module: tvm.IRModule) -> tvm.IRModule:
    """Makes one of the convolutions and products in ``main`` that read the same tensor, and are alike."""
    main = _Merger(module).visit_expr(module["main"])
    return tidied(with_main(module, main))
