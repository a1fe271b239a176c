"""Tests of targets: what is accepted, what is refused and in which words, and what they are called."""

import json
import platform
import subprocess
import sys

import pytest
from tvm.target import Target

from autotune import target as targets
from autotune.target import UnsupportedTarget, canonical, host_target, resolve_target

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names CPUs of x86")
FOREIGN = "neoverse-n1" if platform.machine() in ("x86_64", "AMD64") else "haswell"


def test_host_is_what_is_meant_where_nothing_is_said() -> None:
    host = canonical(host_target(2))
    for given in (None, "host", " host ", "", "llvm", '{"kind": "llvm"}', "{}"):
        assert canonical(resolve_target(given, 2)) == host


def test_host_target_builds_with_the_given_threads() -> None:
    target = host_target(3)
    assert target.kind.name == "llvm"
    assert target.attrs["mcpu"]
    assert target.attrs["num-cores"] == 3


def test_no_attributes_where_the_cpu_is_what_its_name_says() -> None:
    named = targets._features({"kind": "llvm", "mcpu": str(host_target(1).attrs["mcpu"])})
    assert ("mattr" in host_target(1).attrs) == (named != targets._host_features())


@x86
def test_features_that_a_virtual_machine_hides_are_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = {"kind": "llvm", "mcpu": "skylake-avx512"}
    hidden = {f: False for f in targets._features(cpu) if f.startswith("avx512")}
    monkeypatch.setattr("tvm.target.codegen.llvm_get_system_cpu", lambda: cpu["mcpu"])
    monkeypatch.setattr(targets, "_reported_features", lambda: {**hidden, "avxvnni": True, "tsxldtrk": False})
    assert [*host_target(1).attrs["mattr"]] == ["+avxvnni", *(f"-{f}" for f in sorted(hidden))]
    with pytest.raises(UnsupportedTarget, match="avx512f"):
        resolve_target("skylake-avx512", 1)
    resolve_target("haswell", 1)


@x86
def test_a_matrix_unit_that_the_system_does_not_let_one_use_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("search.amx.permitted", lambda: False)
    assert not {f for f in targets._features(host_target(1)) if f.startswith("amx")}
    with pytest.raises(UnsupportedTarget, match="amx-int8"):
        resolve_target("sapphirerapids", 1)


@x86
def test_names_tags_and_json_say_the_same() -> None:
    named = json.loads(canonical(resolve_target("x86-64", 2)))
    given = '{"kind": "llvm", "mcpu": "x86-64", "num-cores": 64}'
    assert json.loads(canonical(resolve_target(given, 2))) == named
    assert named == {"kind": "llvm", "keys": ["cpu"], "mcpu": "x86-64", "num-cores": 2}


@x86
def test_threads_replace_the_cores_of_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = "aws/cpu/c5.18xlarge"
    monkeypatch.setattr(targets, "_host_features", lambda: targets._features(tag))
    target = resolve_target(tag, 2)
    assert (target.attrs["mcpu"], target.attrs["num-cores"]) == ("skylake-avx512", 2)


def test_json_that_tvm_printed_is_understood() -> None:
    assert canonical(resolve_target(str(host_target(8)), 2)) == canonical(host_target(2))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("nonsense", r"unknown target 'nonsense'.\nExpected 'host', LLVM's name of a CPU"),
        ("cuda", "of kind 'cuda': only CPUs"),
        ("nvidia/nvidia-a100", "of kind 'cuda': only CPUs"),
        ('{"kind": "opencl"}', "of kind 'opencl': only CPUs"),
        ('{"kind": "llvm"', "is not valid JSON: Expecting"),
        ('{"kind": "llvm", "cpu": "x"}', "is refused by TVM: Unknown config option 'cpu'"),
        ('{"kind": "llvm", "mcpu": "nonsense"}', "unknown target 'nonsense'"),
        ('{"tag": "no/such"}', "has an unknown tag"),
        (FOREIGN, f"target '{FOREIGN}' is for .*, but this machine is "),
        ('{"kind": "llvm", "mtriple": "riscv64-linux-gnu"}', "is for riscv64, but this machine is "),
    ],
)
def test_refusals_say_what_was_given_and_what_to_do(given: str, text: str) -> None:
    with pytest.raises(UnsupportedTarget, match=text) as caught:
        resolve_target(given, 2)
    assert str(caught.value).count("\n") <= 1
    assert caught.value.exit_code == 31


@x86
def test_misspelt_cpu_is_put_right() -> None:
    with pytest.raises(UnsupportedTarget, match=r"Did you mean .*'skylake-avx512'"):
        resolve_target("skylake-avx513", 2)


@x86
def test_cpu_with_features_that_this_one_lacks_is_refused() -> None:
    """No CPU has both AMX, which is Intel's, and SSE4a, which is AMD's."""
    lacking = {"sapphirerapids": "amx-tile", "znver4": "sse4a"}
    lacking = {cpu: f for cpu, f in lacking.items() if f not in targets._host_features()}
    assert lacking
    for cpu, feature in lacking.items():
        with pytest.raises(UnsupportedTarget, match=rf"lacks: .*\b{feature}\b"):
            resolve_target(cpu, 2)


def test_canonical_is_json_that_makes_the_same_target() -> None:
    text = canonical(host_target(2))
    assert json.loads(text)["num-cores"] == 2
    assert canonical(Target(text)) == text
    assert canonical(host_target(4)) != text


def test_canonical_leaves_out_what_follows_from_the_rest() -> None:
    config = {"kind": "llvm", "mcpu": "neoverse-n1", "mtriple": "aarch64-linux-gnu"}
    target = Target(config)
    assert json.loads(canonical(target)) == {**config, "keys": ["arm_cpu", "cpu"]}
    assert canonical(target.with_host(target)) == canonical(target)


def test_canonical_is_the_same_in_another_process() -> None:
    code = "from autotune.target import canonical, host_target; print(canonical(host_target(2)))"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:] = {sys.path!r}; sys.modules['torch'] = None; {code}",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == canonical(host_target(2)) + "\n"
