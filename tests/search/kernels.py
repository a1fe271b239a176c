"""Small kernels and what tests do with them."""

import tvm
from tvm import te, tirx, topi
from tvm.target import Target

from autotune.target import UnsupportedTarget, host_target, resolve_target
from search.problem import Workload
from search.spaces.tir import workload_from_tir

TARGET = Target({"kind": "llvm", "num-cores": 2})


def matmul(n: int = 32, m: int = 32, k: int = 32, names: str = "ABk") -> tirx.PrimFunc:
    a = te.placeholder((n, k), name=names[0])
    b = te.placeholder((k, m), name=names[1])
    r = te.reduce_axis((0, k), names[2])
    c = te.compute((n, m), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="matmul")
    return te.create_prim_func([a, b, c])


def convolution(size: int = 8, channels: int = 16) -> tirx.PrimFunc:
    image = te.placeholder((1, size, size, channels), name="image")
    weight = te.placeholder((3, 3, channels, channels), name="weight")
    return te.create_prim_func([image, weight, topi.nn.relu(topi.nn.conv2d_nhwc(image, weight, 1, 1, 1))])


def softmax(rows: int = 8, columns: int = 24) -> tirx.PrimFunc:
    x = te.placeholder((rows, columns), name="x")
    return te.create_prim_func([x, topi.nn.softmax(x)])


def copy(n: int = 64) -> tirx.PrimFunc:
    x = te.placeholder((n,), name="x")
    return te.create_prim_func(
        [x, te.compute((n,), lambda i: x[i] + tvm.tirx.const(1.0, "float32"), name="y")]
    )


def workload(function: tirx.PrimFunc, name: str = "kernel") -> Workload:
    return workload_from_tir(function, name)


def runnable(*names: str) -> list[Target]:
    """This machine's own target, and others that it can run."""
    found = [host_target(2)]
    for name in names:
        try:
            found.append(resolve_target(name, 2))
        except UnsupportedTarget:
            continue
    return found
