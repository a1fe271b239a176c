"""Each package imports only those below it: autotune costmodels and db, both of these search."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "search": {"search"},
    "costmodels": {"costmodels", "search"},
    "db": {"db", "search"},
    "migrations": {"migrations"},
}
OURS = {"autotune", "benchmarks", "tests", *MAY_IMPORT}


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that a file imports, also within its functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_no_other_than_those_below_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    found = {(str(f.relative_to(ROOT)), name) for f in files for name in imported(f)}
    assert not sorted((f, name) for f, name in found if name in OURS - MAY_IMPORT[package])
