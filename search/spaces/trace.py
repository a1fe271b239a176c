"""TVM's own schedule space, seen as a sequence of decisions.

TVM's schedule rules derive a few *sketches* from a function: traces of primitives whose parameters are
left open by sampling instructions. The first decision is the sketch; each sampling instruction is one
more: how to split a loop into tiles, which constant to take, where to compute a block.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace
from tvm.target import Target
from tvm.tirx.analysis import undefined_vars

from search import amx, dots, halves
from search.compiler import tune_context
from search.errors import InvalidCandidate, UnsupportedWorkload, last_line
from search.problem import Candidate, Choice, Decision, Workload
from search.space import Draft, Role, distance, steps
from search.spaces.tir import module_of

SPACE_NAME = "tvm-trace/2"

_POSTPROC = "EnterPostproc"
_REDUCED = tirx.IterVar.CommReduce
_LOCATION_LIMIT = 64  # more loops than any block has around it


@functools.cache
def factorizations(extent: int, parts: int, innermost_limit: int) -> tuple[tuple[int, ...], ...]:
    """All ways to write ``extent`` as an ordered product of ``parts`` factors, the last one limited."""

    def split(rest: int, left: int) -> Iterator[tuple[int, ...]]:
        if left == 1:
            yield (rest,)
            return
        for factor in _divisors(rest):
            for tail in split(rest // factor, left - 1):
                yield factor, *tail

    return tuple(t for t in split(extent, parts) if t[-1] <= innermost_limit)


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


@dataclass(frozen=True)
class _Slot:
    """A sampling instruction of a sketch. ``choices`` is empty where they depend on the decisions before."""

    name: str
    instruction: Any
    choices: tuple[Choice, ...]
    role: Role

    @functools.cached_property
    def legal(self) -> frozenset[Choice]:
        """``choices``, to look one up in."""
        return frozenset(self.choices)


@dataclass(frozen=True)
class _Sketch:
    trace: Trace
    slots: tuple[_Slot, ...]

    @functools.cached_property
    def steps(self) -> tuple[tuple[str, int], ...]:
        """How often each primitive occurs."""
        return tuple(sorted(Counter(str(i.kind.name) for i in self.trace.insts).items()))


def _slot(number: int, instruction: Any, decision: Any, loop: Role) -> _Slot:
    """A slot; ``loop`` describes the loop that the instruction splits."""
    kind = instruction.kind.name
    if kind == "SamplePerfectTile":
        parts, limit = (int(a) for a in instruction.attrs)
        extent = math.prod(int(d) for d in decision)
        choices = factorizations(extent, parts, limit)
        return _Slot(f"tile{number}:{extent}", instruction, choices, replace(loop, extent=extent))
    if kind == "SampleCategorical":
        values = tuple(float(v) for v in instruction.attrs[0])
        return _Slot(f"category{number}", instruction, tuple(range(len(values))), Role("category", values))
    return _Slot(f"location{number}", instruction, (), Role("location"))


class _Loops:
    """The loops that a trace splits, by the variable that stands for each.

    Args:
        axes: As ``_axes`` gives them.
    """

    def __init__(self, axes: Mapping[str, Sequence[Role]], instructions: Any) -> None:
        self._found: list[tuple[Any, Role]] = []
        blocks: list[tuple[Any, str]] = []
        for instruction in instructions:
            if instruction.kind.name == "GetSBlock":
                blocks.append((instruction.outputs[0], str(instruction.attrs[0])))
            elif instruction.kind.name == "GetLoops":
                name = next((n for b, n in blocks if b.same_as(instruction.inputs[0])), "")
                count = len(instruction.outputs)
                known = axes.get(name, [])
                for place, loop in enumerate(instruction.outputs):
                    role = known[place] if len(known) == count else Role("tile", inner=count - 1 - place)
                    self._found.append((loop, role))

    def of(self, instruction: Any) -> Role:
        """The loop that an instruction is about; one of which nothing is known where it is about none."""
        loops = (role for loop, role in self._found if any(loop.same_as(i) for i in instruction.inputs))
        return next(loops, Role("tile"))


def _axes(module: tvm.IRModule) -> Iterator[tuple[str, list[Role]]]:
    """What there is to know of each block's loops before anything is scheduled, by the block's name."""
    schedule = Schedule(module)
    with suppress(Exception):  # TVM raises whatever its C++ side throws, of kernels without blocks
        for each in schedule.get_child_blocks(schedule.get_sblock("root")):
            block = schedule.get(each)
            written, *read = [
                undefined_vars(r.region[-1].min) if len(r.region) else []
                for r in (*block.writes, *block.reads)
            ]
            roles = [
                Role(
                    "tile",
                    reduced=axis.iter_type == _REDUCED,
                    inner=len(block.iter_vars) - 1 - place,
                    writes_along=axis.var in written,
                    reads_along=sum(axis.var in r for r in read),
                )
                for place, axis in enumerate(block.iter_vars)
            ]
            yield str(block.name_hint), roles


class TraceSpace:
    """Every schedule that TVM's rules allow for a workload on a target.

    Raises:
        UnsupportedWorkload: TVM has no schedule rule that applies.
    """

    name = SPACE_NAME

    def __init__(self, workload: Workload, target: Target) -> None:
        self.workload = workload
        self._module = module_of(workload)
        self._context = tune_context(self._module, target)
        try:
            sketches = self._context.generate_design_space()
        except Exception as error:
            raise UnsupportedWorkload(
                f"{workload.name}: TVM finds no schedules ({last_line(error)}); it is left untuned"
            ) from error
        self._sketches = self._read([s.trace for s in sketches])

    def _read(self, traces: Sequence[Trace]) -> list[_Sketch]:
        """The sketches that TVM's traces are."""
        axes, found = dict(_axes(self._module)), list[_Sketch]()
        for trace in traces:
            instructions = list(trace.insts)
            loops = _Loops(axes, instructions)
            sampling = [i for i in instructions if i.kind.name.startswith("Sample")]
            slots = (_slot(n, i, trace.get_decision(i), loops.of(i)) for n, i in enumerate(sampling))
            found.append(_Sketch(trace, tuple(slots)))
        return found

    def roles(self, first: Choice | None) -> tuple[Role, ...]:
        sketch = self._sketch_of((first,))
        return Role("sketch", steps=sketch.steps), *(slot.role for slot in sketch.slots)

    def count(self) -> None:
        """Not known: only trying tells which places to compute at are legal, and what is refused."""

    def first(self) -> None:
        """Not known."""

    def next_decision(self, prefix: tuple[Choice, ...]) -> Decision | None:
        if not prefix:
            return Decision("sketch", tuple(range(len(self._sketches))))
        sketch = self._sketch_of(prefix)
        if len(prefix) > len(sketch.slots):
            return None
        slot = sketch.slots[len(prefix) - 1]
        return Decision(slot.name, slot.choices or self._locations(sketch, prefix))

    def sample(self, rng: np.random.Generator) -> Draft:
        number = int(rng.integers(len(self._sketches)))
        return number, *(self._draw(slot, rng) for slot in self._sketches[number].slots)

    def mutate(self, draft: Draft, rng: np.random.Generator) -> Draft:
        slots = self._sketch_of(draft).slots
        movable = [n for n, s in enumerate(slots) if len(s.choices) != 1]
        if not movable or rng.random() < 0.05:
            return self.sample(rng)
        place = int(rng.choice(movable))
        mutated: list[Choice | None] = list(draft)
        mutated[place + 1] = self._vary(slots[place], draft[place + 1], rng)
        return tuple(mutated)

    def crossover(self, left: Draft, right: Draft, rng: np.random.Generator) -> Draft:
        if left[0] != right[0]:
            return left
        return tuple(a if rng.random() < 0.5 else b for a, b in zip(left, right, strict=True))

    def neighbours(self, draft: Draft) -> list[Draft]:
        """Of places to compute at, which depend on all else, none."""
        found: list[Draft] = []
        for place, slot in enumerate(self._sketch_of(draft).slots, start=1):
            own = draft[place]
            if own is not None and slot.choices:
                found += [(*draft[:place], c, *draft[place + 1 :]) for c in steps(own, slot.legal)]
        return found

    def adapt(self, foreign: Draft) -> Draft | None:
        if not isinstance(foreign[0], int) or not 0 <= foreign[0] < len(self._sketches):
            return None
        slots = self._sketches[foreign[0]].slots
        if len(slots) != len(foreign) - 1:
            return None
        adapted: list[Choice | None] = [foreign[0]]
        for slot, wished in zip(slots, foreign[1:], strict=True):
            if wished is None or not slot.choices:
                if isinstance(wished, tuple):
                    return None
                adapted.append(wished)
                continue
            nearest = min(slot.choices, key=lambda c: distance(wished, c))
            if math.isinf(distance(wished, nearest)):
                return None
            adapted.append(nearest)
        return tuple(adapted)

    def adopt(self, trace: str) -> Draft | None:
        """The draft that another tuner's trace of this workload amounts to; None where no sketch is like it.

        Args:
            trace: As ``trace_to_json`` writes it. What its tuner added after the sketch does not count.
        """
        instructions, decisions = json.loads(trace)
        wanted = _before_postproc(instructions)
        taken = {int(at): _plain(decision) for at, decision in decisions}
        sampled = [taken.get(n) for n, i in enumerate(wanted) if i[0].startswith("Sample")]
        for number, sketch in enumerate(self._sketches):
            if _before_postproc(json.loads(trace_to_json(sketch.trace))[0]) == wanted:
                return self.adapt((number, *sampled))
        return None

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        sketch = self._sketch_of(draft)
        if len(draft) != len(sketch.slots) + 1:
            raise InvalidCandidate(
                f"sketch {draft[0]} takes {len(sketch.slots)} decisions, got {len(draft) - 1}"
            )
        schedule = self._apply(sketch, sketch.trace.insts, draft[1:], rng)
        assert isinstance(draft[0], int)  # _sketch_of has seen to it
        choices = (draft[0], *self._decisions(schedule, len(sketch.slots)))
        schedule.enter_postproc()
        for processor in self._context.space_generator.postprocs:
            if not processor.apply(schedule):
                raise InvalidCandidate(f"refused by TVM's {type(processor).__name__}")
        return Candidate(self.workload.hash, self.name, choices, trace_to_json(schedule.trace))

    def _sketch_of(self, draft: Draft) -> _Sketch:
        number = draft[0]
        if not isinstance(number, int) or not 0 <= number < len(self._sketches):
            raise InvalidCandidate(f"sketch {number!r}: expected 0 to {len(self._sketches) - 1}")
        return self._sketches[number]

    def _apply(
        self, sketch: _Sketch, instructions: Any, decisions: Draft, rng: np.random.Generator
    ) -> Schedule:
        """Replays ``instructions`` with ``decisions`` in order; what is None or missing is drawn by TVM."""
        taken = {
            slot.instruction: list(d) if isinstance(d, tuple) else d
            for slot, d in zip(sketch.slots, decisions, strict=False)
            if d is not None
        }
        for slot, decision in zip(sketch.slots, decisions, strict=False):
            if decision is not None and slot.choices and decision not in slot.legal:
                raise InvalidCandidate(
                    f"{slot.name}: {decision!r} is not one of its {len(slot.choices)} choices"
                )
        seed = int(rng.integers(1, 2**31 - 1))
        schedule = Schedule(self._module, seed=seed, debug_mask="none", error_render_level="fast")
        try:
            Trace(instructions, taken).apply_to_schedule(schedule, remove_postproc=True)
        except Exception as error:
            raise InvalidCandidate(last_line(error)) from error
        return schedule

    @staticmethod
    def _decisions(schedule: Schedule, count: int) -> tuple[Choice, ...]:
        """What was decided in fact, which for places to compute at may differ from what was asked."""
        trace = schedule.trace
        sampling = [i for i in trace.insts if i.kind.name.startswith("Sample")][:count]
        return tuple(_choice(trace.get_decision(i)) for i in sampling)

    def _locations(self, sketch: _Sketch, prefix: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """The places where the next block can be computed: -1 root, -2 inlined, else the index of a loop."""
        slot = sketch.slots[len(prefix) - 1]
        instructions = list(sketch.trace.insts)
        upto = instructions[: instructions.index(slot.instruction) + 1]
        rng = np.random.default_rng(0)
        legal: list[Choice] = []
        for place in range(-2, _LOCATION_LIMIT):
            schedule = self._apply(sketch, upto, (*prefix[1:], place), rng)
            if self._decisions(schedule, len(prefix))[-1] == place:
                legal.append(place)
            elif place > max(-1, *(int(c) for c in legal if isinstance(c, int)), -1) + 8:
                break  # legal places lie close together; past the innermost there are none
        return tuple(legal)

    @staticmethod
    def _draw(slot: _Slot, rng: np.random.Generator) -> Choice | None:
        return slot.choices[int(rng.integers(len(slot.choices)))] if slot.choices else None

    def _vary(self, slot: _Slot, choice: Choice | None, rng: np.random.Generator) -> Choice | None:
        """Moves one prime factor of a tile to another loop most of the time; else draws anew."""
        if not isinstance(choice, tuple) or rng.random() < 0.3:
            return self._draw(slot, rng)
        source = int(rng.choice([n for n, f in enumerate(choice) if f > 1]))
        goal = int(rng.choice([n for n in range(len(choice)) if n != source]))
        factor = _smallest_prime(choice[source]) if rng.random() < 0.7 else choice[source]
        moved = list(choice)
        moved[source] //= factor
        moved[goal] *= factor
        result = tuple(moved)
        return result if result in slot.legal else self._draw(slot, rng)


def _smallest_prime(n: int) -> int:
    return next((p for p in range(2, math.isqrt(n) + 1) if n % p == 0), n)


def _before_postproc(instructions: list[Any]) -> list[Any]:
    kinds = [i[0] for i in instructions]
    return instructions[: kinds.index(_POSTPROC)] if _POSTPROC in kinds else instructions


def _plain(decision: Any) -> Choice:
    return tuple(int(d) for d in decision) if isinstance(decision, list) else int(decision)


def _choice(decision: Any) -> Choice:
    """A TVM decision as a plain value."""
    if isinstance(decision, int):
        return decision
    if hasattr(decision, "value"):
        return int(decision.value)
    return tuple(int(d) for d in decision)


def trace_to_json(trace: Trace) -> str:
    """A trace as text that ``apply_trace`` reads back, also in later sessions and on other machines."""
    return json.dumps(trace.as_json(), default=lambda o: o.value, separators=(",", ":"))


def apply_trace(module: tvm.IRModule, trace: str) -> tvm.IRModule:
    """The scheduled module that a candidate's trace describes; as ``schedule_of``."""
    return schedule_of(module, trace).mod


def schedule_of(module: tvm.IRModule, trace: str) -> Schedule:
    """The schedule that a candidate's trace describes, with its trace.

    Raises:
        InvalidCandidate: The trace does not apply to this module.
    """
    dots.prepare(trace)
    amx.prepare(trace)
    halves.prepare(trace)
    schedule = Schedule(module, debug_mask="none", error_render_level="fast")
    try:
        Trace.apply_json_to_schedule(json.loads(trace), schedule)
    except Exception as error:
        raise InvalidCandidate(f"the trace does not apply: {last_line(error)}") from error
    return schedule
