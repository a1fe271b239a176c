import numpy as np

from search.problem import TensorSpec, Workload
from search.similarity import embedding, nearest


def conv(size: int, channels: int, name: str = "conv", dtype: str = "float32") -> Workload:
    args = (TensorSpec((1, size, size, channels), dtype), TensorSpec((3, 3, channels, channels), dtype))
    out = TensorSpec((1, size, size, channels), dtype)
    return Workload(name, name, (*args, out), 1, 18.0 * size**2 * channels**2, 9 * channels, "")


def test_names_and_the_order_of_arguments_say_nothing() -> None:
    work = conv(14, 64)
    turned = Workload("x", "y", work.args[1::-1] + work.args[2:], 1, work.flop, work.reduction, "")
    assert np.array_equal(embedding(work), embedding(turned))


def test_the_most_similar_come_first() -> None:
    others = [
        (conv(7, 512), "far"),
        (conv(28, 64), "near"),
        (conv(14, 64), "itself"),
        (conv(14, 256), "middle"),
    ]
    assert [name for _, name in nearest(conv(14, 64), others, 3)] == ["itself", "near", "middle"]
    assert nearest(conv(14, 64), [], 3) == []
