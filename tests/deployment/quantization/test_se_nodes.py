"""SE in graphs written by hand, and what is none."""

import pytest

from senet.deployment.quantization.keep_float import kept_nodes
from senet.deployment.quantization.se_nodes import Node, SENodes, einsum_kind, find_se_nodes


def graph(*rows: str) -> list[Node]:
    """Nodes of lines such as "mul Mul conv gate"."""
    return [Node(name, kind, tuple(inputs)) for name, kind, *inputs in map(str.split, rows)]


SE = (
    "u Conv x",
    "z ReduceMean u",
    "fc1 Gemm z",
    "relu Relu fc1",
    "fc2 Gemm relu",
    "s Sigmoid fc2",
    "gain Mul s",
    "view Reshape gain",
    "out Mul u view",
    "sum Add out x",
    "pool ReduceMean sum",
    "fc Gemm pool",
)


def test_se_is_found_with_its_parts_and_the_classifier_is_none() -> None:
    (se,) = find_se_nodes(graph(*SE))
    assert se == SENodes(gate=("z", "fc1", "relu", "fc2", "s", "gain", "view"), products=("out",))


@pytest.mark.parametrize(
    ("keep_float", "names"),
    [
        ("none", []),
        ("gate", ["z", "fc1", "relu", "fc2", "s", "gain", "view"]),
        ("block", ["z", "fc1", "relu", "fc2", "s", "gain", "view", "out"]),
    ],
)
def test_what_is_kept(keep_float: str, names: list[str]) -> None:
    assert kept_nodes(graph(*SE), keep_float) == names


def test_the_mean_and_the_maximum_of_a_map_make_one_gate() -> None:
    (se,) = find_se_nodes(
        graph("z GlobalAveragePool u", "m GlobalMaxPool u", "both Add z m", "fc Conv both", "s Sigmoid fc", "o Mul s u")
    )
    assert se.gate == ("z", "m", "both", "fc", "s")


def test_a_gate_from_the_input_of_a_convolution_scales_its_output() -> None:
    # The squeeze before an expanding convolution.
    (se,) = find_se_nodes(graph("z ReduceMean h", "fc MatMul z", "s Sigmoid fc", "u Conv h", "o Multiply u s"))
    assert se.products == ("o",)


@pytest.mark.parametrize(
    ("equation", "kind"),
    [
        ("nchw,nc->nchw", "Mul"),
        ("...chw, ...c -> ...chw", "Mul"),
        ("nchw->nc", "ReduceSum"),
        ("nc,hc->nh", "MatMul"),
        ("bqc,bkc->bqk", "MatMul"),
        ("nc,ch", "MatMul"),
    ],
)
def test_einsums(equation: str, kind: str) -> None:
    assert einsum_kind(equation) == kind


def test_sizes_that_are_read_from_the_input_are_no_part() -> None:
    (se,) = find_se_nodes(
        graph("n Shape x", "size Gather n", "z ReduceMean x", "fc MatMul z", "r Reshape fc size", "o Mul x r")
    )
    assert se.gate == ("z", "fc", "r")


@pytest.mark.parametrize(
    "rows",
    [
        ("square Mul x x", "mean ReduceMean square", "root Sqrt mean", "out Mul x root"),  # a norm
        ("pool GlobalAveragePool x", "fc Gemm pool", "s Sigmoid fc"),  # a classifier
        ("pool GlobalAveragePool x", "fc Conv pool", "up Resize fc", "out Concat x up"),  # pooled context
        ("conv Conv x", "s Sigmoid conv", "out Mul x s"),  # a gate of each position
    ],
)
def test_others_are_not_found(rows: tuple[str, ...]) -> None:
    assert find_se_nodes(graph(*rows)) == []
