"""The command's root, and the one place where errors become messages and exit codes."""

import json
import os
import signal
import sys
from typing import Annotated, Any

import typer

from autotune.cli import bench, build, collect, database, doctor, models, replay, run, tasks, train
from search.errors import AutotuneError

INTERRUPTED = 130

app = typer.Typer(
    name="autotune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Makes a model's kernels faster on this machine, and proves it.\n\n"
    "Start with: `autotune run squeezenet --minutes 3`",
)
app.command("run")(run.run)
app.command("tasks")(tasks.tasks)
app.command("compile")(build.compile_command)
app.command("bench")(bench.bench)
app.command("collect")(collect.collect)
app.command("train")(train.train)
app.command("doctor")(doctor.doctor)
app.command("replay")(replay.replay)
app.add_typer(database.app, name="db")
app.add_typer(models.app, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        from autotune.session import own_version

        typer.echo(f"autotune {own_version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that hold for every command."""


def main() -> None:
    """Runs the command line; a person's mistake is a message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    wants_json = "--json" in sys.argv
    try:
        app(standalone_mode=True)
    except AutotuneError as error:
        _fail(str(error), type(error).__name__, error.exit_code, wants_json)
    except SystemExit as end:
        if end.code != INTERRUPTED:  # which is what typer makes of Ctrl-C
            raise
        text = "interrupted"
        if sys.argv[1:2] == ["run"]:
            text += "; what was measured is stored. The same command goes on from here."
        _fail(text, "Interrupted", INTERRUPTED, wants_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _fail(text: str, kind: str, code: int, wants_json: bool) -> None:
    if wants_json:
        typer.echo(json.dumps({"error": kind, "message": text, "exit_code": code}))
    typer.echo(f"autotune: {text}", err=True)
    sys.exit(code)
