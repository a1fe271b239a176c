"""One execution of the tuner from a model to an artifact, recorded so that it can be resumed."""

import time
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from autotune.deliver import check_delivery, deliver, reference_outputs
from autotune.errors import BadInput, UnsupportedModel
from autotune.frontends.graph import Model
from autotune.manifest import Manifest, NoiseEntry, RankingEntry, RunEntry
from autotune.measure.pool import Pool
from autotune.profile import Profile
from autotune.session import Session
from autotune.tuner import Budget, Observer, Progress, Tuner
from autotune.winners import verify_winners
from db.values import Run, RunSpec, RunStatus
from search.errors import AutotuneError
from search.problem import Task
from search.searchers import DEFAULT
from search.spaces import first_guess


@dataclass(frozen=True)
class RunOptions:
    """What a person chose for a run; ``pretrained``: whether trained cost models take part."""

    budget: Budget
    seed: int = 0
    tasks: str = "*"
    searcher: str = DEFAULT
    pretrained: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:  # what a column of the database holds
            raise BadInput(f"--seed {self.seed}: expected 0 or more, and less than 2**63")


def select_tasks(model: Model, pattern: str) -> tuple[Task, ...]:
    """The tasks whose name matches a shell pattern; a plain word matches any name that contains it.

    Raises:
        BadInput: None matches.
        UnsupportedModel: The model has none at all.
    """
    if not model.tasks:
        raise UnsupportedModel(f"{model.name} has no kernels: there is nothing to tune")
    wild = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    chosen = tuple(t for t in model.tasks if fnmatch(t.name, wild))
    if not chosen:
        names = ", ".join(t.name for t in model.tasks[:5])
        raise BadInput(
            f"--tasks {pattern} matches none of the {len(model.tasks)} tasks of {model.name} ({names}, ...)"
        )
    return chosen


def run_model(
    model: Model,
    session: Session,
    options: RunOptions,
    folder: Path,
    observe: Observer = lambda progress: None,
) -> Manifest:
    """Tunes, verifies and delivers. ``KeyboardInterrupt`` and what a person can mend leave it resumable.

    A run of the same model, conditions and seed that was interrupted or killed is taken up where it stopped;
    its budget counts from its beginning.
    """
    from autotune.learning import Learned, learned_models  # whose imports `autotune tasks` need not wait for

    tasks = select_tasks(model, options.tasks)
    check_delivery(model, folder)
    reference_outputs(model)  # before minutes are spent on what could not be checked
    store, conditions = session.store, session.conditions
    store.add_model(model.hash, model.name, model.source.source, model.tasks)
    budget = options.budget
    settings = {
        "trials": budget.trials, "seconds": budget.seconds, "gain": budget.gain, "tasks": options.tasks,
        "searcher": options.searcher, "pretrained": options.pretrained,
    }  # fmt: skip
    spec = RunSpec(model.hash, conditions, options.seed, settings)
    earlier = store.resumable_run(spec)
    goes_on = earlier is not None and _goes_on(earlier, spec, options)
    run = store.resume_run(earlier.id) if earlier and goes_on else store.start_run(spec)
    try:
        profile = Profile()
        learned = (
            learned_models(store, conditions) if options.pretrained and budget.trials != 0 else Learned()
        )
        tuner = Tuner(
            model, tasks, session.target, conditions, store, budget, observe, profile, options.searcher,
            learned.trained,
        )  # fmt: skip

        def say(doing: str) -> None:
            tuner.progress.doing = doing
            store.beat(run.id, tuner.progress.elapsed_s, tuner.progress.trials)  # it may take minutes
            observe(tuner.progress)

        began = time.monotonic()
        with Pool(conditions.target, conditions.threads, profile=profile) as pool:
            progress = tuner.run(run, pool)
            tuned = time.monotonic()

            def say_proved(proved: int, of: int, doing: str) -> None:
                progress.proved, progress.to_prove = proved, of
                progress.proving_s = time.monotonic() - tuned
                say(doing)

            verify_winners(
                tasks, store, conditions, pool, run.id, model.moved_bytes, say_proved,
                partial(first_guess, target=session.target),
            )  # fmt: skip
            progress.proved = progress.to_prove
        noise = tuple(NoiseEntry(at_s=p.at_s - began, drift=p.drift) for p in pool.noise.points)
        entry = _run_entry(
            run.id, options.seed, progress, noise, profile.seconds(), _rankings(tuner), learned.names
        )
        manifest = deliver(model, session, folder, entry, say)
        store.end_run(run.id, RunStatus.FINISHED)
        return manifest
    except (KeyboardInterrupt, AutotuneError, OSError):
        with suppress(AutotuneError):  # a full or locked database; a run without an end is resumable too
            store.end_run(run.id, RunStatus.INTERRUPTED)
        raise
    except BaseException:
        store.end_run(run.id, RunStatus.FAILED)
        raise


def _goes_on(earlier: Run, spec: RunSpec, options: RunOptions) -> bool:
    """Whether a run that was left is the one asked for: the same, or the same tasks with budget to spare."""
    before = earlier.spec.settings
    left = options.budget.left(earlier.trials, earlier.elapsed_s)
    asked = {"tasks": options.tasks, "searcher": options.searcher, "pretrained": options.pretrained}
    same = all(before.get(k, v) == v for k, v in asked.items())
    return before == spec.settings or (same and left)


def _rankings(tuner: Tuner) -> tuple[RankingEntry, ...]:
    return tuple(
        RankingEntry(task=r.workload, listened_to=r.listened_to, accuracy=r.accuracy, foreseen_s=r.foreseen_s)
        for r in tuner.rankings
    )


def _run_entry(
    run_id: int,
    seed: int,
    progress: Progress,
    noise: tuple[NoiseEntry, ...],
    own_s: dict[str, float],
    rankings: tuple[RankingEntry, ...],
    models: tuple[str, ...],
) -> RunEntry:
    return RunEntry(
        id=run_id,
        seed=seed,
        trials=progress.trials,
        settled=progress.settled,
        elapsed_s=progress.elapsed_s,
        failures=dict(progress.failures),
        curve=tuple(progress.curve),
        noise=noise,
        own_s=own_s,
        rankings=rankings,
        models=models,
    )
