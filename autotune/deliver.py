"""From winners in the database to an artifact in a folder: compiled, checked, timed, described, reported."""

import errno
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autotune.build import compile_model, find_linker, write_library
from autotune.errors import ArtifactError, NoRecords, UnsupportedModel, VerificationFailed
from autotune.frontends.graph import Model
from autotune.frontends.model import Array, random_inputs
from autotune.frontends.quantized.passes import is_quantized
from autotune.manifest import (
    BENCH_NAME,
    LIBRARY_NAME,
    REPORT_NAME,
    Check,
    HardwareEntry,
    InputEntry,
    Manifest,
    ModelEntry,
    RunEntry,
    TaskEntry,
)
from autotune.measure.artifact import run_library
from autotune.measure.check import moved_by_steps, relative_error, tolerance
from autotune.report.html import write_report
from autotune.session import Session
from autotune.winners import CANDIDATES, winner_of
from db.errors import DatabaseReadOnly
from search.problem import Candidate, Conditions, Measurement, Task, Verification
from search.spaces import first_guess

ROOM_BYTES = 16 << 20  # that an artifact's code, report and temporary files take at most, by experience
COPIES = 3  # of the constants while the library is linked
NEVER_MEASURED = "never measured; the schedule that a formula takes for the best"


def deliver(
    model: Model,
    session: Session,
    folder: Path,
    run: RunEntry,
    observe: Callable[[str], None] = lambda text: None,
) -> Manifest:
    """Writes library, manifest and report of a model into ``folder``; an older artifact stays until the end.

    Raises:
        NoRecords: This is no run, and the database holds no candidate of any task for these conditions.
        VerificationFailed: The compiled model computes something else than the original one.
        LinkFailed: The library cannot be linked.
        ArtifactError: The folder cannot be written.
    """
    chosen = {t.workload.hash: _choose(t, session) for t in model.tasks}
    traces = {hash_: c.candidate.trace for hash_, c in chosen.items() if c.candidate}
    if run.id is None and all(c.note == NEVER_MEASURED for c in chosen.values()):
        raise NoRecords(
            f"the database {session.store} holds no records of {model.name} for this hardware, target and "
            f"{session.conditions.threads} threads; measure some with: autotune run {model.source.source}, "
            "or do without by adding: --trials 0"
        )
    check_delivery(model, folder)
    with writing(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as draft:
        library = Path(draft) / LIBRARY_NAME
        observe("compiling the model")
        write_library(compile_model(model, traces, session.target), library)
        observe("checking the compiled model")
        check, latency_s = _check(model, library, session.conditions.threads)
        entries = tuple(_entry(t, chosen[t.workload.hash], session) for t in model.tasks)
        manifest = _manifest(model, session, entries, check, latency_s, run)
        observe("writing the report")
        manifest.write(Path(draft))
        write_report(manifest, Path(draft) / REPORT_NAME)
        for name in os.listdir(draft):
            (Path(draft) / name).replace(folder / name)
        (folder / BENCH_NAME).unlink(missing_ok=True)  # it was about the old one
    with suppress(DatabaseReadOnly):  # compiling takes no more than to read
        session.store.add_model(model.hash, model.name, model.source.source, model.tasks)
        made = manifest.model_dump(mode="json")
        session.store.add_artifact(model.hash, run.id, str(folder.resolve()), made)
    return manifest


@contextmanager
def writing(folder: Path, option: str = "--out") -> Iterator[None]:
    """Turns what the file system reports inside the block into ``ArtifactError``."""
    try:
        yield
    except OSError as error:
        what = "no space left on the disk of" if error.errno == errno.ENOSPC else "cannot write to"
        raise ArtifactError(
            f"{what} {folder}: {error.strerror or error}; {option} names another folder"
        ) from error


def check_delivery(model: Model, folder: Path) -> None:
    """Finds out before minutes are spent what would keep an artifact from being written.

    Raises:
        LinkFailed: There is no linker.
        ArtifactError: The folder cannot be written, or has no room: LLVM would end this process for that.
    """
    find_linker()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if shutil.disk_usage(folder).free < ROOM_BYTES + COPIES * model.constant_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True)
class _Choice:
    """What the artifact gets for a task: a verified winner, else the best measured candidate, else a guess.

    Attributes:
        proof: Of the winner; for a kernel that keeps its plain loops, the newest comparison with them.
    """

    candidate: Candidate | None
    best_s: float | None
    proof: Verification | None
    note: str

    @property
    def verified(self) -> bool:
        return self.candidate is not None and self.proof is not None


def _choose(task: Task, session: Session) -> _Choice:
    hash_, store, conditions = task.workload.hash, session.store, session.conditions
    ranked = {m.candidate.hash: m for m in store.best(hash_, conditions, CANDIDATES)}
    failed = [v for v in store.verifications(hash_, conditions) if v.text]
    if found := winner_of(task.workload, store, conditions):
        winner, measured = found
        wrong = [v for v in failed if not v.correct]
        note = f"a faster candidate was rejected: {wrong[0].text}" if wrong else ""
        return _Choice(winner.candidate, measured.latency_s, winner, note)
    rejected = {v.candidate.hash for v in failed}
    untried = [m for m in ranked.values() if m.candidate.hash not in rejected]
    if untried and not failed:
        note = "not verified by a paired test yet; autotune run does that"
        return _Choice(untried[0].candidate, untried[0].latency_s, None, note)
    compared = next((v for v in failed if v.before_s), None)
    if failed:
        return _Choice(None, None, compared, failed[0].text)
    return _Choice(first_guess(task.workload, session.target), None, None, NEVER_MEASURED)


def reference_outputs(model: Model) -> tuple[list[Array], list[Array]]:
    """Random inputs, and what the original model makes of them.

    Raises:
        UnsupportedModel: It cannot be run on them.
    """
    inputs = random_inputs(model.inputs)
    try:
        return inputs, model.source.reference(inputs)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedModel(
            f"{model.name} does not run in {model.source.reference_name}, so that nothing could be checked "
            f"against it: {lines[-1][:300]}"
        ) from error


def _check(model: Model, library: Path, threads: int) -> tuple[Check, tuple[float, ...]]:
    """Compares the compiled model with the original one on random inputs; times it as well."""
    inputs, expected = reference_outputs(model)
    outputs, latency_s = run_library(library, inputs, threads)
    if [o.shape for o in outputs] != [e.shape for e in expected]:
        raise VerificationFailed(
            f"the compiled {model.name} has outputs of shape {[o.shape for o in outputs]}, "
            f"the original in {model.source.reference_name} {[e.shape for e in expected]}"
        )
    error = max(relative_error(o, e) for o, e in zip(outputs, expected, strict=True))
    # Errors of kernels in a row add up like those of the terms in one sum.
    reduction = sum(t.weight * t.workload.reduction for t in model.tasks)
    allowed = max(tolerance(str(e.dtype), reduction) for e in expected)
    if error > allowed and is_quantized(model.source.module):
        allowed = max(allowed, moved_by_steps(model.source.reference, inputs, expected, model.source.nudged))
    if error > allowed:
        raise VerificationFailed(
            f"the compiled {model.name} differs from the original in {model.source.reference_name} by "
            f"{error:.2e} of the largest output, tolerance {allowed:.2e}; nothing was written"
        )
    return Check(reference=model.source.reference_name, max_error=error, tolerance=allowed), latency_s


def _entry(task: Task, choice: _Choice, session: Session) -> TaskEntry:
    measured: Sequence[Measurement] = session.store.measurements(task.workload.hash, session.conditions)
    proof = choice.proof
    won = proof if choice.verified else None
    return TaskEntry(
        name=task.name,
        workload=task.workload.hash,
        weight=task.weight,
        flop=task.workload.flop,
        bytes=task.workload.bytes,
        status="tuned" if choice.candidate else "untuned",
        winner=choice.candidate.hash if choice.candidate else None,
        trials=len(measured),
        failures=sum(m.error is not None for m in measured),
        best_s=choice.best_s,
        before_s=proof.before_s if proof else (),
        after_s=won.after_s if won else proof.before_s if proof else (),  # plain loops stay as they were
        cache=proof.cache if proof and proof.before_s else None,
        p_faster=won.p_faster if won else None,
        max_error=won.max_error if won else None,
        tolerance=won.tolerance if won else None,
        note=choice.note,
    )


def _manifest(
    model: Model,
    session: Session,
    tasks: tuple[TaskEntry, ...],
    check: Check,
    latency_s: tuple[float, ...],
    run: RunEntry,
) -> Manifest:
    known = all(t.before_s for t in tasks)
    return Manifest(
        library=LIBRARY_NAME,
        created_at=datetime.now(UTC),
        model=ModelEntry(
            name=model.name,
            source=model.source.source,
            hash=model.hash,
            inputs=tuple(
                InputEntry(name=i.name, shape=i.spec.shape, dtype=i.spec.dtype) for i in model.inputs
            ),
        ),
        target=session.conditions.target,
        threads=session.conditions.threads,
        hardware=hardware_entry(session.conditions),
        versions=dict(session.conditions.versions),
        database=str(session.store),
        tasks=tasks,
        latency_s=latency_s,
        untuned_s=sum(t.weight * statistics.median(t.before_s) for t in tasks) if known else None,
        check=check,
        run=run,
    )


def hardware_entry(conditions: Conditions) -> HardwareEntry:
    """The hardware of these conditions, for the manifest."""
    hardware = conditions.hardware
    return HardwareEntry(
        name=hardware.name,
        fingerprint=hardware.fingerprint,
        cores=hardware.cores,
        features=dict(hardware.features),
        probes=dict(hardware.probes),
    )
