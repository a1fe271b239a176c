"""The formats by name, and which of them a file is in."""

import json
import re
from enum import StrEnum
from pathlib import Path

from db.errors import BadRecords
from db.exchange.files import Source

PORTABLE_NAME = "autotune/records"
"""What the first line of a portable file says that it is."""
METASCHEDULE_FILES = "database_workload.json", "database_tuning_record.json"


class Format(StrEnum):
    """What can be imported; all but ``traces`` can be exported too."""

    PORTABLE = "portable"  # ours
    METASCHEDULE = "metaschedule"  # the folder of a JSON database of TVM
    KERNEL_TUNER = "kernel_tuner"  # its cache file
    T4 = "t4"  # results of any tuner, in the T4 format
    TRACES = "traces"  # lines of modules, and of traces with their times


def guess(path: Path) -> Format:
    """The format of a file or folder, by its contents.

    Raises:
        BadRecords: It is none, or cannot be read.
    """
    if path.is_dir() or path.name in METASCHEDULE_FILES:
        return Format.METASCHEDULE
    head = Source(path).head().lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        first = json.loads(head.partition(b"\n")[0])
    except (ValueError, RecursionError):  # more than a line, or a line longer than the head
        first = None
    if isinstance(first, dict) and first.get("format") == PORTABLE_NAME:
        return Format.PORTABLE
    if re.match(rb'\{"(workload|w)": ?\d+,', head):
        return Format.TRACES
    if re.search(rb'"(tune_params|tune_params_keys)"\s*:|"cache"\s*:\s*\{', head):
        return Format.KERNEL_TUNER
    if re.search(rb'"(results|timeunit|schema_version)"\s*:', head):
        return Format.T4
    raise BadRecords(
        f"{path} is none of the formats that can be imported: {', '.join(Format)}.\n"
        "Give another file, or say with --format which of them it is meant to be."
    )


def metaschedule_folder(path: Path) -> Path:
    """The folder of a MetaSchedule database, of which one file may be given too."""
    return path.parent if path.name in METASCHEDULE_FILES else path
