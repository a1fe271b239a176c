"""Networks quantized to bytes by ONNX Runtime, compiled by us, beside OpenVINO and ONNX Runtime.

    python -m benchmarks.quantized                        # first guesses, without a trial
    python -m benchmarks.quantized --minutes 2 --models resnet18

Static quantization, in the QDQ form: activations as unsigned bytes, weights as signed ones, a scale for each
channel, calibrated on random inputs, for the time does not depend on the values. Writes
``OUT/NAME-int8.onnx``, the artifacts in ``OUT/NAME-int8``, and ``OUT/quantized.json`` with the fields of
``benchmarks.models``. That outputs "differ from the original's" is to be expected: whoever adds up in another
order, or merges two roundings, is off by a step here and there, and that moves what follows.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console

from autotune.bench.original import Original
from autotune.frontends import load_model
from autotune.frontends.model import ModelInput, random_inputs
from benchmarks.models import bench, tune

MODELS = "resnet18,resnet50,mobilenet_v2,squeezenet,inception_v1,bert_base"
CALIBRATIONS = 2


class RandomInputs(CalibrationDataReader):  # type: ignore[misc]
    """What ``random_inputs`` gives, from a few seeds."""

    def __init__(self, inputs: tuple[ModelInput, ...]) -> None:
        self._left: Iterator[dict[str, Any]] = iter(
            {i.name: a for i, a in zip(inputs, random_inputs(inputs, seed), strict=True)}
            for seed in range(CALIBRATIONS)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def quantize(name: str, out: Path) -> str:
    """Writes OUT/NAME-int8.onnx; the path."""
    source = load_model(name)
    path, prepared = out / f"{Path(name).stem}-int8.onnx", out / f"{Path(name).stem}-prepared.onnx"
    original = Original(name, {i.name: i.spec for i in source.inputs}, out / f"{Path(name).stem}-float")
    original.folder.mkdir(exist_ok=True)
    quant_pre_process(str(original.onnx_path), str(prepared))
    quantize_static(
        str(prepared), str(path), RandomInputs(source.inputs), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    return str(path)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--models", default=MODELS, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=0.0, help="for each network; 0: first guesses")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantized"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    console = Console()
    results: dict[str, Any] = {}
    for name in options.models.split(","):
        path = quantize(name, options.out)
        results[path] = tune(path, options.minutes, options.out / Path(path).stem, console)
    bench(list(results), options.out, options.rounds, results, console, ["openvino", "onnxruntime"])
    (options.out / "quantized.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
