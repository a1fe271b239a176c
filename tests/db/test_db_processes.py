"""Several processes at once, and processes that die."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from db_samples import HERE, candidate, timed, workload
from db_writer import BATCH, batch

from db.store import Store

ROOT = Path(__file__).parents[2]


def python(*args: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *args], stdin=pipe, stdout=pipe, text=True, env=environment)


def writers(url: str, count: int, batches: int) -> "list[subprocess.Popen[str]]":
    """Processes that begin at the same time."""
    program = str(Path(__file__).with_name("db_writer.py"))
    processes = [python(program, url, str(number), str(batches)) for number in range(count)]
    assert [p.stdout and p.stdout.readline() for p in processes] == ["ready\n"] * count
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def test_three_processes_create_and_write_at_once(database_url: str) -> None:
    processes = writers(database_url, 3, 20)
    assert [len(p.communicate(timeout=30)[0].splitlines()) for p in processes] == [20, 20, 20]
    assert [p.returncode for p in processes] == [0, 0, 0]
    with Store.open(database_url) as store:
        found = store.measurements(workload().hash, HERE)
    expected = Counter(i for n in range(3) for number in range(20) for i in batch(n, number))
    assert Counter(m.candidate.choices[0] for m in found) == expected
    assert all(m == timed(m.candidate, m.samples_s[0]) for m in found)


def test_a_killed_process_loses_nothing_committed(database_url: str) -> None:
    with Store.open(database_url, create=True) as store, writers(database_url, 1, 100_000)[0] as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) == 20:
                break
        process.kill()
        told = 21 + len(process.stdout.readlines())
        process.wait()
        found = [m.candidate.choices[0] for m in store.measurements(workload().hash, HERE)]
        assert len(found) % BATCH == 0 and len(found) // BATCH in (told, told + 1)
        assert found[: told * BATCH] == [i for number in range(told) for i in batch(0, number)]
        store.add_measurements(None, HERE, [timed(candidate(), 1.0)])  # the dead hold no lock


def test_neither_torch_nor_tvm_is_loaded() -> None:
    with python("-c", "import db.store, sys; print({'torch', 'tvm'} & set(sys.modules))") as process:
        assert process.stdout and process.stdout.read() == "set()\n"
