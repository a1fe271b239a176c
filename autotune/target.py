"""What kernels are compiled for: targets given by people, resolved, checked against this machine, and named.

TVM is imported when a function is called, so that importing this module stays cheap.
"""

import difflib
import json
import textwrap
from typing import TYPE_CHECKING, Any

from search.errors import AutotuneError

if TYPE_CHECKING:
    from tvm.target import Target

_HOST_FEATURES = "tvm.codegen.llvm.GetHostCPUFeatures"
_OTHER_ARCHITECTURES = ("x86_64", "aarch64", "riscv64", "powerpc64le")

_EMITTED = (
    "sse", "ssse", "avx", "amx", "fma", "f16c", "gfni", "bmi", "lzcnt", "popcnt", "movbe",
    "neon", "fp-armv8", "fullfp16", "fp16fml", "dotprod", "i8mm", "bf16", "rdm", "sve", "sme",
)  # fmt: skip
"""How LLVM's names of those features begin that its code generator uses unasked.

Whether the others (``sgx``, ``tsxldtrk``: virtual machines hide many) are there changes no kernel.
"""


class UnsupportedTarget(AutotuneError):
    """A target that does not exist, or that this machine cannot run."""

    exit_code = 31


def host_target(threads: int) -> "Target":
    """This machine's CPU, running a kernel on ``threads`` threads."""
    from tvm.target import Target

    return Target({**_host_config(), "num-cores": threads})


def resolve_target(given: str | None, threads: int) -> "Target":
    """The target that a person means.

    Args:
        given: ``host`` or None; LLVM's name of a CPU, such as ``skylake-avx512``; a TVM target tag, such as
            ``aws/cpu/c5.xlarge``; or a target as JSON, where a CPU left out is this machine's.
        threads: Threads that a kernel runs on; takes the place of any ``num-cores`` given.

    Raises:
        UnsupportedTarget: It does not exist, is no CPU, or has instructions that this machine lacks.
    """
    from tvm.target import Target

    if given is None or given.strip() in ("", "host"):
        return host_target(threads)
    config = _parse(given.strip())
    try:
        target = Target({**config, "num-cores": threads})
    except Exception as error:  # TVM raises whatever its C++ side throws
        reason = textwrap.shorten(str(error).partition("Target creation")[0], 200)
        raise UnsupportedTarget(f"target {given!r} is refused by TVM: {reason}") from error
    _check_runs_here(given, target)
    return target


def lacking(target: Any) -> str:
    """What this machine lacks of the instructions that code for a target may use: some names, for people."""
    names = sorted(_features(target) - _host_features())
    return textwrap.shorten(", ".join(names), 100, placeholder=" ...")


def canonical(target: "Target") -> str:
    """JSON text that is equal for equal targets, in any process: the key of the database.

    Left out is what follows from the rest: the tag, the features that TVM reads off the CPU's name, and the
    target of the host, which for a CPU is the CPU itself.
    """
    config: dict[str, Any] = json.loads(str(target))
    kept = {k: v for k, v in config.items() if k not in ("tag", "host") and not k.startswith("feature.")}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def _host_config() -> dict[str, Any]:
    """Target of this machine without its number of threads.

    A virtual machine may hide features of the CPU that it passes on the name of, and LLVM names a CPU that it
    does not know after a relative: where name and CPU disagree, ``mattr`` says what is true, since code for
    an instruction that is not there dies of SIGILL. Anywhere but on x86, TVM derives its knowledge of vector
    extensions from the triple, and so is told.
    """
    from tvm.target import codegen

    config: dict[str, Any] = {"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()}
    if _architecture(_system_triple()) != "x86_64":
        config["mtriple"] = _system_triple()
    named, actual = _features(config), _host_features()
    if mattr := [f"+{f}" for f in sorted(actual - named)] + [f"-{f}" for f in sorted(named - actual)]:
        config["mattr"] = mattr
    return config


def _parse(given: str) -> dict[str, Any]:
    """Configuration of an LLVM target, from a name or from JSON."""
    from tvm.target import Target, codegen, list_tags

    config: dict[str, Any]
    if given.startswith("{"):
        try:
            config = json.loads(given)
        except ValueError as error:
            raise UnsupportedTarget(f"target {given!r} is not valid JSON: {error}") from error
    elif given in Target.list_kinds():
        config = {"kind": given}
    elif given in list_tags():
        config = {"tag": given}
    elif codegen.llvm_is_valid_cpu(given, _system_triple()):
        config = {"kind": "llvm", "mcpu": given}
    else:
        raise UnsupportedTarget(_unknown_cpu(given))
    name = config.get("tag")
    tag = list_tags().get(name)
    if name and tag is None:  # else TVM would take it for a remark
        raise UnsupportedTarget(f"target {given!r} has an unknown tag: leave it out, or take one of TVM's")
    kind = tag.kind.name if tag is not None else config.setdefault("kind", "llvm")
    if kind != "llvm":  # found out before TVM builds the target, which for CUDA warns of missing drivers
        expected = "only CPUs (kind 'llvm') are supported; leave the target out to use this machine's"
        raise UnsupportedTarget(f"target {given!r} is of kind {kind!r}: {expected}")
    complete = tag is not None or config.keys() & {"mcpu", "mtriple"}
    return config if complete else {**_host_config(), **config}


def _check_runs_here(given: str, target: "Target") -> None:
    """Raises ``UnsupportedTarget`` unless this machine has all that ``target`` uses."""
    from tvm.target import codegen

    triple = str(target.attrs.get("mtriple", _system_triple()))
    if (there := _architecture(triple)) != _architecture(_system_triple()):
        raise UnsupportedTarget(_foreign(given, there))
    cpu = str(target.attrs.get("mcpu", ""))
    if cpu and not codegen.llvm_is_valid_cpu(cpu, triple):
        raise UnsupportedTarget(_unknown_cpu(cpu))
    if names := lacking(target):
        advice = f"Tune on such a CPU, or for this machine's ({codegen.llvm_get_system_cpu()!r})."
        raise UnsupportedTarget(f"target {given!r} uses what this machine lacks: {names}.\n{advice}")


def _unknown_cpu(name: str) -> str:
    """What to say of a CPU name that LLVM does not know for this architecture."""
    from tvm.target import Target, codegen

    for other in _OTHER_ARCHITECTURES:
        if codegen.llvm_is_valid_cpu(name, other):
            return _foreign(name, other)
    known = [str(c) for c in codegen.llvm_get_cpu_archlist(Target({"kind": "llvm"}))]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return (
        f"unknown target {name!r}.{hint}\nExpected 'host', LLVM's name of a CPU (this machine's is "
        f"{codegen.llvm_get_system_cpu()!r}), a TVM target tag, or a target as JSON."
    )


def _foreign(given: str, architecture: str) -> str:
    """What to say of a target for another architecture."""
    here = _architecture(_system_triple())
    return f"target {given!r} is for {architecture}, but this machine is {here}: tune on such a CPU"


def _features(target: Any) -> set[str]:
    """LLVM's names of the extensions that code for ``target`` may use."""
    from tvm.target import Target, codegen

    return {f for f in codegen.llvm_get_cpu_features(Target(target)) if f.startswith(_EMITTED)}


def _host_features() -> set[str]:
    """The same of this machine: what its CPU's name promises, corrected by what the CPU itself reports."""
    from tvm.target import codegen

    reported = {f: there for f, there in _reported_features().items() if f.startswith(_EMITTED)}
    named = _features({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})
    return {f for f in named | reported.keys() if reported.get(f, True)}


def _reported_features() -> dict[str, bool]:
    """What the CPU and the operating system report; on some platforms incomplete."""
    import tvm

    from search import amx

    reported = {str(name): bool(there) for name, there in tvm.get_global_func(_HOST_FEATURES)().items()}
    hidden = [] if amx.permitted() else [f for f in reported if f.startswith("amx")]
    return reported | dict.fromkeys(hidden, False)


def _system_triple() -> str:
    from tvm.target import codegen

    return str(codegen.llvm_get_system_triple())


def _architecture(triple: str) -> str:
    """First part of an LLVM triple, in one spelling."""
    name = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name, name)
