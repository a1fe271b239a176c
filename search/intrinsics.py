"""Instructions that TVM does not know, described to it: what one means, as loops, and what to write instead.

Both are functions of TVM's, built here without its parser, which would take 20 ms for each: every process
that compiles a candidate needs several.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T


@dataclass(frozen=True)
class Operand:
    """A part of a tensor.

    Attributes:
        apart: Whether how far its rows (and planes) lie apart is known only where the instruction is used.
    """

    shape: tuple[int, ...]
    dtype: str
    scope: str = "global"
    apart: bool = False

    @property
    def whole(self) -> tuple[slice, ...]:
        """All of it."""
        return tuple(slice(0, extent) for extent in self.shape)


def described(
    inputs: Sequence[Operand],
    output: Operand,
    summed: Sequence[int],
    value: Callable[..., Any],
    calls: Callable[..., Iterable[Any]],
    order: Sequence[int] = (),
) -> tuple[Any, Any]:
    """What ``TensorIntrin.register`` wants: the meaning, then the instructions.

    Args:
        summed: Extents of what is summed over; with the output's axes before them, at least two axes.
        value: What is stored, of all buffers, the output's last, and all axes.
        calls: Of instructions, of all buffers; may write more into the function that is being built.
        order: In which order loops over the axes stand; by default, as they are numbered.
    """
    operands = [*inputs, output]
    extents = [*output.shape, *summed]
    order = order or range(len(extents))

    def regions(buffers: Sequence[Any]) -> None:
        *read, written = (b[o.whole] for b, o in zip(buffers, operands, strict=True))
        T.reads(*([written] if summed else []), *read)
        T.writes(written)

    with IRBuilder() as meaning, T.prim_func(s_tir=True):
        T.func_name("meaning")
        buffers = [T.arg(f"operand{n}", _buffer(o)) for n, o in enumerate(operands)]
        with T.sblock("root"):
            regions(buffers)
            with T.grid(*(extents[n] for n in order)) as found:
                loops = dict(zip(order, found, strict=True))
                with T.sblock("update"):
                    kinds = "S" * len(output.shape) + "R" * len(summed)
                    axes = T.axis.remap(kinds, [loops[n] for n in range(len(extents))])
                    T.buffer_store(buffers[-1], value(*buffers, *axes), axes[: len(output.shape)])
    with IRBuilder() as instructions, T.prim_func(s_tir=True):
        T.func_name("instructions")
        handles = [T.arg(f"handle{n}", T.handle()) for n in range(len(operands))]
        buffers = [_matched(handle, o) for handle, o in zip(handles, operands, strict=True)]
        with T.sblock("root"):
            regions(buffers)
            for call in calls(*buffers):
                T.evaluate(call)
    return meaning.get(), instructions.get()


def _buffer(operand: Operand) -> Any:
    return T.Buffer(operand.shape, operand.dtype, offset_factor=1, scope=operand.scope, layout=None)


def _matched(handle: Any, operand: Operand) -> Any:
    strides = [*(T.int32() for _ in operand.shape[1:]), 1] if operand.apart else None
    return T.match_buffer(
        handle,
        operand.shape,
        operand.dtype,
        offset_factor=1,
        scope=operand.scope,
        strides=strides,
        layout=None,
    )
