import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import convolution, matmul, softmax, workload
from tvm import te

from search.errors import UnsupportedWorkload
from search.problem import TensorSpec
from search.spaces.tir import module_of, workload_from_tir, workload_hash

# If this changes, every record in every database is lost to its users: never change it, add a scheme.
GOLDEN = "e43fadba"


def test_hash_is_the_same_in_every_release() -> None:
    assert workload(matmul(4, 5, 6)).hash[:8] == GOLDEN


@settings(max_examples=15, deadline=None)
@given(st.text("abcdefgXYZ", min_size=3, max_size=3).filter(lambda s: len(set(s)) == 3))
def test_hash_does_not_depend_on_names(names: str) -> None:
    assert workload_hash(matmul(4, 5, 6, names)) == workload_hash(matmul(4, 5, 6))


def test_hash_does_not_depend_on_the_process() -> None:
    code = "from kernels import *; print(workload(matmul(4, 5, 6)).hash)"
    path = f"import sys; sys.path[:] = {sys.path!r}; "
    printed = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=True)
    assert printed.stdout.split()[-1] == workload(matmul(4, 5, 6)).hash


def test_hash_depends_on_what_is_computed() -> None:
    functions = [matmul(4, 5, 6), matmul(5, 4, 6), softmax(4, 5), convolution(4, 4)]
    assert len({workload_hash(f) for f in functions}) == len(functions)


def test_the_function_s_own_name_does_not_matter() -> None:
    renamed = matmul().with_attr("global_symbol", "something_else")
    assert workload(renamed).hash == workload(matmul()).hash


def test_facts_of_a_convolution() -> None:
    work = workload_from_tir(convolution(8, 16), "fused_conv2d3_add12_relu")
    assert work.name == "conv2d_add_relu"
    assert work.args[-1] == TensorSpec((1, 8, 8, 16), "float32")
    assert work.outputs == 1
    assert work.reduction == 3 * 3 * 16
    assert work.flop >= 2 * 8 * 8 * 16 * work.reduction  # each term is a product and an addition
    assert work.bytes == 4 * (2 * 8 * 8 * 16 + 3 * 3 * 16 * 16)


def test_module_comes_back() -> None:
    work = workload(softmax())
    assert workload_hash(module_of(work)["main"]) == work.hash


def test_symbolic_shapes_are_refused_with_advice() -> None:
    n = te.var("n")
    x = te.placeholder((n,), name="x")
    function = te.create_prim_func([x, te.compute((n,), lambda i: x[i] * 2.0, name="y")])
    with pytest.raises(UnsupportedWorkload, match="--input"):
        workload_from_tir(function, "dynamic")
