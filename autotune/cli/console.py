"""Where output goes: people's text on a rich console, programs' JSON on standard output."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from autotune.frontends.graph import Model
    from autotune.manifest import Manifest


def console(quiet: bool = False) -> Console:
    """A console on standard output; on standard error where that is kept for JSON.

    On the stream as it is now: what is redirected later (``frontends.model.quiet``) does not stop a spinner.
    """
    return Console(file=sys.stderr if quiet else sys.stdout, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def lowering(
    model: str,
    shapes: Mapping[str, tuple[int, ...]],
    batch: int | None,
    target: str | None,
    threads: int | None,
    screen: Console,
) -> "Model":
    """Imports a model and finds its tasks, with a word on the screen meanwhile."""
    with screen.status(f"importing {model}"):
        from autotune.api import as_source, lowered_model

        return lowered_model(as_source(model, None, shapes, batch), target, threads)


def show_result(manifest: "Manifest", folder: Path, screen: Console, as_json: bool) -> None:
    """What ``run`` and ``compile`` end with: the manifest for programs, a summary for people."""
    if as_json:
        print_json(manifest.model_dump(mode="json") | {"folder": str(folder)})
        return
    from autotune.manifest import REPORT_NAME
    from autotune.report.summary import print_summary

    print_summary(manifest, screen)
    library, report = folder / manifest.library, folder / REPORT_NAME
    screen.print(f"compiled model: {library}\nreport:         {report}", soft_wrap=True)
