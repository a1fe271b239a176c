"""``autotune tasks``."""

from typing import TYPE_CHECKING

from autotune.cli import options
from autotune.cli.options import check_batch, parse_shapes

if TYPE_CHECKING:
    from autotune.frontends.graph import Model
    from search.problem import Task


def tasks(
    model: options.Model,
    threads: options.Threads = None,
    target: options.Target = None,
    input: options.Inputs = [],  # noqa: B006  (typer reads the default)
    batch: options.Batch = None,
    json: options.Json = False,
) -> None:
    """Show the distinct kernels of a model: how often each occurs, its work and its shapes.

    Example: `autotune tasks resnet18`
    """
    from autotune.cli.console import console, lowering

    lowered = lowering(model, parse_shapes(input), check_batch(batch), target, threads, console(json))
    print_tasks(lowered, lowered.tasks, json)


def print_tasks(model: "Model", chosen: "tuple[Task, ...]", as_json: bool) -> None:
    """Prints tasks as a table or as JSON."""
    from rich.table import Table

    from autotune.cli.console import console, print_json

    if as_json:
        print_json([_plain(t) for t in chosen])
        return
    total = sum(t.workload.flop * t.weight for t in model.tasks) or 1.0
    table = Table(
        title=f"{model.name}: {len(chosen)} of {len(model.tasks)} tasks, {total / 1e9:.2f} GFLOP in all"
    )
    table.add_column("task", overflow="fold")
    for name in ("times", "MFLOP", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("shapes", overflow="fold")
    for task in chosen:
        work = task.workload
        table.add_row(
            task.name,
            str(task.weight),
            f"{work.flop / 1e6:.2f}",
            f"{100 * work.flop * task.weight / total:.1f} %",
            " ".join("x".join(map(str, a.shape)) or "scalar" for a in work.args),
        )
    console().print(table)


def _plain(task: "Task") -> dict[str, object]:
    work = task.workload
    return {
        "name": task.name,
        "weight": task.weight,
        "workload": work.hash,
        "kernel": work.name,
        "flop": work.flop,
        "bytes": work.bytes,
        "args": [{"shape": a.shape, "dtype": a.dtype} for a in work.args],
        "outputs": work.outputs,
    }
