"""The report of an artifact: one page that needs nothing beside it."""

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from autotune.manifest import Manifest
from autotune.measure.noise import NOISY
from autotune.report import numbers
from autotune.report.facts import Facts, find_facts
from autotune.report.plots import curve_plot, noise_plot, ranking_plot, share_plot
from autotune.report.spread import RESAMPLES, Estimate, interval
from autotune.report.tuning import MODEL_NAMES

if TYPE_CHECKING:
    from autotune.bench.result import BenchResult

_FAILURES = {
    "invalid": "the schedule does not apply",
    "build_error": "it did not compile",
    "build_timeout": "it took too long to compile",
    "run_error": "it failed when run",
    "run_timeout": "it took too long to run",
    "crash": "it took the worker process down",
    "out_of_memory": "it, or compiling it, needed more memory than it may have",
    "out_of_bounds": "it wrote outside of its outputs",
    "wrong_output": "its output differs from the reference",
    "implausible": "it was faster than the hardware can be",
    "task_given_up": "the kernel cannot be scheduled, or not run with plain loops",
}
_PHASES = {
    "search": "choosing candidates",
    "features": "cost model: describing candidates",
    "model": "cost model: learning and predicting",
    "build": "compiling candidates",
    "run": "checking and timing candidates",
    "database": "reading and writing records",
    "idle": "waiting for a quiet machine",
    "other": "everything else, such as starting processes and verifying the winners",
    "profiler": "measuring these times",
}
_PROBES = {
    "peak_gflops_f32": ("Peak, float32", "GFLOP/s"),
    "peak_gflops_f32_core": ("Peak, one core", "GFLOP/s"),
    "peak_gflops_f64": ("Peak, float64", "GFLOP/s"),
    "peak_gflops_f16": ("Peak, float16", "GFLOP/s"),
    "peak_gops_i8": ("Peak, int8", "GOP/s"),
    "bandwidth_gbps": ("Memory", "GB/s"),
    "bandwidth_gbps_core": ("Memory, one core", "GB/s"),
    "l1d_gbps_core": ("L1, one core", "GB/s"),
    "l2_gbps_core": ("L2, one core", "GB/s"),
    "l3_gbps_core": ("L3, one core", "GB/s"),
    "fork_us": ("Fork of threads", "us"),
    "clock_ghz": ("Clock", "GHz"),
}


def write_report(manifest: Manifest, path: Path, bench: "BenchResult | None" = None) -> None:
    """Writes the report of an artifact as one HTML file, all of it or nothing.

    Args:
        bench: The artifact beside its peers, where that was measured.
    """
    draft = path.with_name(f".{path.name}")
    draft.write_text(_render(find_facts(manifest), bench), encoding="utf-8")
    draft.replace(path)


def _render(facts: Facts, bench: "BenchResult | None") -> str:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    source = files(__package__).joinpath("template.html.j2").read_text("utf-8")
    m = facts.manifest
    return environment.from_string(source).render(
        facts=facts,
        m=m,
        bench=bench,
        n=numbers,
        interval=interval,
        resamples=RESAMPLES,
        curve=Markup(curve_plot(m.run, _middle(facts.before), _middle(facts.latency))),
        noise=Markup(noise_plot(m.run.noise)),
        rankings=Markup(ranking_plot(m.run)),
        model_names=MODEL_NAMES,
        noisy=NOISY,
        phase_texts=_PHASES,
        shares=Markup(share_plot(facts.tasks)),
        failures=sorted(m.run.failures.items(), key=lambda item: -item[1]),
        failure_texts=_FAILURES,
        probe_texts=_PROBES,
        features=dict(_feature(name, value) for name, value in m.hardware.features.items()),
        arrays=[f"np.zeros({i.shape}, {i.dtype!r})" for i in m.model.inputs],
        database=_without_password(m.database),
    )


def _middle(value: Estimate | None) -> float | None:
    return value.middle if value else None


def _feature(name: str, value: Any) -> tuple[str, str]:
    """An entry of the hardware's descriptor, named and written for people."""
    if name.endswith("_bytes") and isinstance(value, dict):
        value = {key: numbers.size(count) for key, count in value.items()}
    return name.removesuffix("_bytes").replace("_", " "), numbers.plain(value)


def _without_password(database: str) -> str:
    """A database's URL or path, fit to be passed around."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", database)
