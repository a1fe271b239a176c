"""Our kernels beside the fastest that the vendors have for the same layers, over several models.

    python -m benchmarks.vendor --models squeezenet,bert_base
    python -m benchmarks.vendor --db autotune.db     # the best that was measured there; else first guesses

What ``autotune bench MODEL --kernels`` does for each. Writes ``benchmarks/results/vendor.json``.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from autotune.bench.kernels import bench_kernels
from autotune.bench.result import KernelEntry
from autotune.bench.table import print_kernels
from autotune.hardware import usable_cores

MODELS = "resnet50,mobilenet_v2,squeezenet,inception_v1,bert_base"
CLOSE = 0.97
WIDTH = 110  # of the table, columns


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--db", help="take the best measured candidates from this database")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, WIDTH)
    found: list[KernelEntry] = []
    options.out.mkdir(parents=True, exist_ok=True)
    for model in options.models.split(","):
        with console.status(model) as status:
            asked = bench_kernels(model, None, None, options.db, usable_cores(), options.rounds)
            for left, kernel in asked:
                if kernel:
                    found.append(kernel)
                status.update(f"{model}: {left} layers left")
                (options.out / "vendor.json").write_text(json.dumps([asdict(k) for k in found]))
    print_kernels(found, console)
    console.print(f"{sum(k.ratio < CLOSE for k in found)} below {CLOSE}", highlight=False)


if __name__ == "__main__":
    main()
