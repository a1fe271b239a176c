"""``autotune compile``."""

from autotune.cli import options
from autotune.cli.options import check_batch, parse_shapes


def compile_command(
    model: options.Model,
    threads: options.Threads = None,
    target: options.Target = None,
    db: options.Database = None,
    out: options.Out = None,
    input: options.Inputs = [],  # noqa: B006  (typer reads the default)
    batch: options.Batch = None,
    json: options.Json = False,
) -> None:
    """Compile a model from what the database knows, without measuring candidates.

    Example: `autotune compile resnet18 --out resnet18-tuned`
    """
    from autotune.api import DEFAULT_FOLDER
    from autotune.cli.console import console, show_result
    from autotune.deliver import deliver
    from autotune.frontends import load_model
    from autotune.frontends.graph import lower
    from autotune.manifest import RunEntry
    from autotune.session import open_session

    screen = console(json)
    shapes = parse_shapes(input)
    with (
        open_session(db, target, threads, probe=False, create=False) as session,
        screen.status(f"importing {model}") as status,
    ):
        lowered = lower(load_model(model, shapes, check_batch(batch)), session.target)
        folder = out or DEFAULT_FOLDER / lowered.name
        manifest = deliver(lowered, session, folder, RunEntry(), status.update)
    show_result(manifest, folder, screen, json)
