"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from autotune.errors import BadInput
from autotune.examples import EXAMPLES
from autotune.frontends import find_model

Model = Annotated[
    str,
    typer.Argument(
        help=f"An .onnx file, a PyTorch exported program (.pt2), or an example: {', '.join(EXAMPLES)}.",
        show_default=False,
        callback=find_model,
    ),
]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input", metavar="NAME=1x3x224x224", help="Size of an input that the file leaves open; repeatable."
    ),
]
Batch = Annotated[
    int | None, typer.Option(help="Batch size, where the file leaves it open; examples take any.")
]
Threads = Annotated[int | None, typer.Option(help="Threads of a kernel.", show_default="all usable cores")]
Target = Annotated[
    str | None, typer.Option(help="CPU to compile for, as LLVM names it.", show_default="this one")
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db", help="Database: a path or a URL. AUTOTUNE_DB sets another default.",
        show_default="in the user's data folder",
    ),
]  # fmt: skip
Out = Annotated[Path | None, typer.Option(help="Folder of the artifact.", show_default="autotune-out/MODEL")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def parse_shapes(inputs: list[str]) -> dict[str, tuple[int, ...]]:
    """``name=1x3x224x224`` as a mapping.

    Raises:
        BadInput: Not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for given in inputs:
        name, _, sizes = given.rpartition("=")
        parts = sizes.split("x")
        if not name or not all(p.isdecimal() and int(p) > 0 for p in parts):
            raise BadInput(f"--input {given}: expected a name and positive sizes, such as image=1x3x224x224")
        shapes[name] = tuple(int(p) for p in parts)
    return shapes


def check_batch(batch: int | None) -> int | None:
    """The batch size as given.

    Raises:
        BadInput: Not positive.
    """
    if batch is not None and batch < 1:
        raise BadInput(f"--batch {batch}: expected at least 1")
    return batch
