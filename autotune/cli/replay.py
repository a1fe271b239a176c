"""``autotune replay``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.cli import options

if TYPE_CHECKING:
    from autotune.replay.recording import Recording


def replay(
    spaces: Annotated[
        list[str],
        typer.Argument(
            metavar="SPACE...",
            help="Cache files of Kernel Tuner, T4 files, or workload hashes of the database.",
            show_default=False,
        ),
    ],
    searcher: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Searchers; `all` for all of ours.", show_default="the default, and random"
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Searches of each kind, with seeds 0, 1, ...", min=1)] = 20,
    batch: Annotated[
        int,
        typer.Option(help="Candidates proposed at once while little is known; the first come singly.", min=1),
    ] = 4,
    kernel_tuner: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Optimisers of Kernel Tuner beside them, or `all`.", show_default=False
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes.", show_default="usable cores", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for replay.json and replay.html.", show_default=False)
    ] = None,
    db: options.Database = None,
    json: options.Json = False,
) -> None:
    """Compare searchers on recorded spaces at recorded cost, without the hardware.

    Example: `autotune replay convolution_milo_A4000.json.gz --searcher all --repeats 10`
    """
    from rich.progress import track

    from autotune.cli.console import console
    from autotune.hardware import usable_cores
    from autotune.replay import comparison as results
    from autotune.replay.run import ours
    from autotune.replay.run import replay as run

    screen = console(json)
    with screen.status("reading recordings"):
        recordings = [_recording(space, db) for space in spaces]
    searches = ours(_chosen(searcher), batch)
    if kernel_tuner:
        from autotune.replay.kernel_tuner import STRATEGIES, strategies

        names = STRATEGIES if kernel_tuner == "all" else tuple(kernel_tuner.split(","))
        searches |= strategies(names)
    total = len(searches) * len(recordings) * repeats
    done = run(searches, recordings, repeats, jobs or usable_cores())
    compared = results.compare(recordings, track(done, "replaying", total, console=screen, transient=True))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "replay.json").write_text(results.to_json(compared))
        results.write_page(compared, out / "replay.html")
    if json:
        typer.echo(results.to_json(compared))
        return
    results.print_comparison(compared, screen)
    if out is not None:
        screen.print(f"curves: {out / 'replay.html'}", soft_wrap=True)


def _chosen(given: str | None) -> list[str]:
    """The searchers asked for.

    Raises:
        BadInput: There is none of that name.
    """
    from autotune.api import check_searcher
    from search.searchers import DEFAULT, SEARCHERS

    if given == "all":
        return list(SEARCHERS)
    return [check_searcher(name) for name in (given.split(",") if given else [DEFAULT, "random"])]


def _recording(space: str, db: str | None) -> "Recording":
    """A file, or what the database holds of a workload under the conditions with the most measurements.

    Raises:
        BadInput: Neither a file nor a hash.
    """
    from autotune.errors import BadInput
    from autotune.replay.recording import from_store, read_recording
    from db.store import Store

    if Path(space).exists():
        return read_recording(Path(space))
    if not space or set(space.lower()) - set("0123456789abcdef"):
        raise BadInput(f"{space}: expected a file that exists, or the start of a workload's hash")
    with Store.open(db) as store:
        return from_store(store, space)
