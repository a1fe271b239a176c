"""Indices as sums of quotients and remainders of loops: what strides and footprints depend on."""

import math

Form = dict[tuple[int, int, int], float]
"""An index: the sum over ``(loop, divisor, count): factor`` of ``loop // divisor % count * factor``, and a
constant, which is left out, as neither strides nor footprints depend on it."""


def plus(left: Form, right: Form, sign: int = 1) -> Form:
    """``left + sign * right``."""
    if not left and sign == 1:
        return right
    total = dict(left)
    for part, factor in right.items():
        total[part] = total.get(part, 0) + sign * factor
    return total


def times(form: Form, factor: int) -> Form:
    """``form * factor``."""
    return {part: f * factor for part, f in form.items()}


def divided(form: Form, divisor: int) -> Form:
    """``form // divisor``, as if nothing were carried."""
    quotient: Form = {}
    for (loop, d, count), factor in form.items():
        size = abs(factor)
        if size >= divisor:
            quotient[loop, d, count] = factor / divisor
        elif (rest := math.ceil(count * size / divisor)) > 1:
            quotient[loop, d * int(divisor // size), rest] = 1
    return quotient


def modulo(form: Form, divisor: int) -> Form:
    """``form % divisor``, as if nothing were carried."""
    remainder: Form = {}
    for (loop, d, count), factor in form.items():
        if size := abs(factor) % divisor:
            remainder[loop, d, min(count, math.ceil(divisor / size))] = size
    return remainder
