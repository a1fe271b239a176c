"""Kernels that several benchmarks tune."""

from collections.abc import Callable

from tvm import te, tirx, topi


def matmul_512() -> tirx.PrimFunc:
    """512 x 512 x 512, float32: 0.27 GFLOP."""
    a = te.placeholder((512, 512), name="a")
    b = te.placeholder((512, 512), name="b")
    k = te.reduce_axis((0, 512), name="k")
    return te.create_prim_func(
        [a, b, te.compute((512, 512), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="matmul")]
    )


def convolution_56() -> tirx.PrimFunc:
    """ResNet's 3x3 on 56 x 56 x 64, channels last, float32: 0.23 GFLOP."""
    image = te.placeholder((1, 56, 56, 64), name="image")
    weight = te.placeholder((3, 3, 64, 64), name="weight")
    return te.create_prim_func([image, weight, topi.nn.conv2d_nhwc(image, weight, 1, 1, 1)])


KERNELS: dict[str, Callable[[], tirx.PrimFunc]] = {"matmul": matmul_512, "convolution": convolution_56}
