"""What is computed in integers is decided on the graph as it was imported."""

from collections import Counter
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends.fold import Bindings, constant, fold_constants, with_main
from autotune.frontends.quantized.held import CONVERSIONS, SIGN, Bytes, IntegerSum, name_of
from search.vectors import Vectors

_MOVES = {"relax.expand_dims", "relax.flatten", "relax.nn.max_pool2d", "relax.permute_dims", "relax.reshape",
          "relax.squeeze", "relax.strided_slice"}  # fmt: skip


@mutator
class _Unsigned(PyExprMutator):  # type: ignore[misc]
    """Holds signed bytes as unsigned ones where nothing but real numbers is made of them."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        main = module["main"]
        of, uses, taken = Bindings(main).of, Counter[Any](), Counter[Any]()

        def visit(node: Any) -> None:
            if isinstance(node, relax.Call):
                uses.update(a for a in node.args if isinstance(a, relax.Var))
                if name_of(node) == "relax.dequantize" and _is_signed(node):
                    taken[node.args[0]] += 1
            elif isinstance(node, relax.Tuple):
                uses.update(f for f in node.fields if isinstance(f, relax.Var))

        relax.analysis.post_order_visit(main, visit)
        uses[main.body.body] += 1
        moved = {
            variable: value
            for variable, value in of.items()
            if name_of(value) == "relax.quantize" and _is_signed(value) and uses[variable] == taken[variable]
        }
        self._moved = {*moved, *moved.values()}

    def visit_call_(self, call: Any) -> Any:
        moved = (call.args[0] if name_of(call) == "relax.dequantize" else call) in self._moved
        call = self.visit_expr_post_order(call)
        return (
            self._raised(call, "uint8" if name_of(call) == "relax.quantize" else "float32") if moved else call
        )

    @staticmethod
    def _raised(call: Any, dtype: str) -> Any:
        zero = (constant(call.args[2]).astype(np.int16) + SIGN).astype(np.uint8)  # type: ignore[union-attr]
        operator = relax.op.quantize if name_of(call) == "relax.quantize" else relax.op.dequantize
        return operator(call.args[0], call.args[1], relax.const(zero, "uint8"), int(call.attrs.axis), dtype)


@mutator
class _Earlier(PyExprMutator):  # type: ignore[misc]
    """Makes bytes of numbers before they are moved, instead of after: there is a fourth as much to move.

    What picks elements, or the largest of them, gives the same before and after a rounding. What then becomes
    the bytes that it was is left as it is.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._bindings = Bindings(module["main"])

    def visit_call_(self, call: Any) -> Any:
        if name_of(call) != "relax.quantize" or not _is_uniform(call):
            return self.visit_expr_post_order(call)
        return self._bytes_of(call.args[0], call)

    def _bytes_of(self, expr: Any, call: Any) -> Any:
        """The bytes that ``call`` would make of ``expr``."""
        moved = self._bindings.own(expr)
        if name_of(moved) == "relax.concat" and isinstance(moved.args[0], relax.Tuple):
            parts = [self.builder_.emit(self._bytes_of(part, call)) for part in moved.args[0].fields]
            return relax.op.concat(parts, moved.attrs.axis)
        if name_of(moved) in _MOVES:
            first = self.builder_.emit(self._bytes_of(moved.args[0], call))
            rest = [self.visit_expr(a) for a in moved.args[1:]]
            return relax.Call(moved.op, [first, *rest], moved.attrs, moved.ty_args)
        value = self._bindings.of.get(expr, expr)
        if name_of(value) == "relax.dequantize" and _same_bytes(value, call):
            return self.visit_expr(value.args[0])
        return relax.Call(call.op, [self.visit_expr(expr), *call.args[1:]], call.attrs, call.ty_args)


@mutator
class _RealWeights(PyExprMutator):  # type: ignore[misc]
    """Makes numbers of constant bytes, but for weights of sums that a target has an instruction for."""

    def __init__(self, module: tvm.IRModule, instruction: bool) -> None:
        super().__init__(module)
        of = Bindings(module["main"]).of
        self._kept: set[Any] = set()
        for call in of.values():
            found = IntegerSum.of(call, lambda e: of.get(e, e), last=False)
            if found and (instruction or found.depthwise):
                weights = of[call.args[1]]
                self._kept.add(weights if name_of(weights) == "relax.dequantize" else of[weights.args[0]])

    def visit_call_(self, call: Any) -> Any:
        if name_of(call) == "relax.dequantize" and call not in self._kept:
            held = Bytes.of(call, lambda e: e)
            if held and isinstance(held.values, np.ndarray):
                return relax.const(held.real, "float32")
        return self.visit_expr_post_order(call)


def prepare_bytes(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Decides what is computed in integers: that keeps its weights as bytes, all else gets numbers."""
    if not is_quantized(module):
        return module
    module = with_main(module, _Unsigned(module).visit_expr(module["main"]))
    module = with_main(module, _Earlier(module).visit_expr(module["main"]))
    instruction = Vectors.of(target, "int32").dots
    return fold_constants(with_main(module, _RealWeights(module, instruction).visit_expr(module["main"])))


def is_quantized(module: tvm.IRModule) -> bool:
    """Whether a module rounds to bytes, or holds any."""
    return any(name_of(value) in CONVERSIONS for value in Bindings(module["main"]).of.values())


def _is_uniform(call: Any) -> bool:
    """Whether a conversion has one scale and one zero, both known."""
    about = [constant(a) for a in call.args[1:3]]
    return all(a is not None and a.size == 1 for a in about)


def _same_bytes(first: Any, second: Any) -> bool:
    """Whether what one conversion takes is what the other one makes."""
    if not (_is_uniform(first) and _is_uniform(second)):
        return False
    same = all(constant(a) == constant(b) for a, b in zip(first.args[1:3], second.args[1:3], strict=True))
    return same and str(first.args[0].ty.dtype) == str(second.attrs.out_dtype)


def _is_signed(call: Any) -> bool:
    """Whether ``quantize`` makes, or ``dequantize`` takes, signed bytes with a known zero."""
    kind = call.attrs.out_dtype if name_of(call) == "relax.quantize" else call.args[0].ty.dtype
    return str(kind) == "int8" and constant(call.args[2]) is not None and constant(call.args[1]) is not None
