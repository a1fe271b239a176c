"""``autotune bench``."""

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import options
from autotune.cli.options import check_batch, parse_shapes


def bench(
    model: options.Model,
    artifact: Annotated[
        Path | None,
        typer.Option(help="Compiled model.", show_default="autotune-out/MODEL, where it exists"),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.", min=3)] = 30,
    threads: options.Threads = None,
    peers: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these peers.", show_default="all that there are")
    ] = None,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Also compare each layer's kernel with the vendors' fastest.")
    ] = False,
    db: options.Database = None,
    input: options.Inputs = [],  # noqa: B006  (typer reads the default)
    batch: options.Batch = None,
    json: options.Json = False,
) -> None:
    """Measure a compiled model beside PyTorch, ONNX Runtime, OpenVINO and untuned TVM, in turn, in one run.

    With --kernels, each convolution and matrix product is also compared with the fastest of oneDNN, MKL and
    OpenVINO: what would their kernels bring?

    Example: `autotune bench resnet18 --rounds 50 --kernels`
    """
    from contextlib import closing
    from dataclasses import replace

    from autotune.api import DEFAULT_FOLDER
    from autotune.bench.run import bench_model
    from autotune.bench.table import print_bench
    from autotune.cli.console import console
    from autotune.deliver import writing
    from autotune.errors import AutotuneError
    from autotune.manifest import BENCH_NAME, REPORT_NAME, Manifest
    from autotune.report.html import write_report
    from autotune.session import check_threads

    threads = check_threads(threads)
    default = DEFAULT_FOLDER / Path(model).stem
    folder = artifact or (default if default.is_dir() else None)
    screen = console(json)
    if folder is None:
        screen.print(
            f"no compiled model in {default}: only the peers are measured (autotune run {model} makes one)"
        )
    manifest = Manifest.read(folder) if folder else None
    failed: AutotuneError | None = None
    with screen.status("preparing") as status:
        result = bench_model(
            model, folder, threads, rounds, parse_shapes(input), check_batch(batch),
            peers.split(",") if peers else None, lambda text: status.update(text),
        )  # fmt: skip
        if kernels:
            from autotune.bench.kernels import KernelsFailed, bench_kernels

            found, missed = [], []
            asked = bench_kernels(model, parse_shapes(input), check_batch(batch), db, threads, rounds)
            status.update("comparing kernels")
            try:
                with closing(asked):
                    for left, kernel in asked:
                        if isinstance(kernel, str):
                            missed.append(kernel)
                        else:
                            found.append(kernel)
                        status.update(f"comparing kernels: {len(found)} done, {left} left")
            except KernelsFailed as error:  # the rounds are done: what they showed is kept
                failed = error
            result = replace(result, kernels=tuple(found), not_compared=tuple(missed))
    if json:
        typer.echo(result.to_json())
    else:
        print_bench(result, screen)
    if folder and manifest:
        with writing(folder, "--artifact"):  # the report then shows the peers as well
            (folder / BENCH_NAME).write_text(result.to_json())
            write_report(manifest, folder / REPORT_NAME, result)
    if failed:
        raise failed
