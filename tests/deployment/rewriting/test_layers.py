"""The algebra: a batch norm folded into any layer, and a squeeze before a grouped 1x1 convolution, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from senet.deployment.rewriting.batch_norms import affine_of
from senet.deployment.rewriting.excitations import read_excitations
from senet.deployment.rewriting.forms import Forms
from senet.deployment.rewriting.layers import dense_rows, fold_into
from senet.deployment.rewriting.modules import InferenceSE, PointwiseSE
from senet.graph.se_modules import find_se
from senet.nn import SqueezeExcitation
from tests.helpers import assert_close, randomise

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
few = settings(max_examples=20, deadline=None)
flags, axes = st.booleans(), st.integers(1, 3)


@few
@given(
    axes,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    flags,
    flags,
    flags,
)
def test_a_batch_norm_is_folded_into_any_convolution(
    dim: int, groups: int, ins: int, outs: int, kernel: int, stride: int, transposed: bool, bias: bool, affine: bool
) -> None:
    kind = (TRANSPOSED if transposed else CONVOLUTIONS)[dim]
    options = {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": bias}
    conv = kind(groups * ins, groups * outs, kernel, **options).double().eval()
    norm = randomise(NORMS[dim](groups * outs, affine=affine)).double().eval()
    x = torch.randn(2, groups * ins, *[5] * dim, dtype=torch.float64)
    assert_close(fold_into(conv, affine_of(norm))(x), norm(conv(x)), 1e-12)


@few
@given(st.integers(1, 5), st.integers(1, 5), flags)
def test_a_batch_norm_is_folded_into_a_linear_layer(ins: int, outs: int, bias: bool) -> None:
    layer, norm = nn.Linear(ins, outs, bias=bias).double(), randomise(nn.BatchNorm1d(outs)).double().eval()
    x = torch.randn(3, ins, dtype=torch.float64)
    assert_close(fold_into(layer, affine_of(norm))(x), norm(layer(x)), 1e-12)


@few
@given(
    axes,
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    flags,
    flags,
    st.sampled_from(("conv", "linear")),
)
def test_the_squeeze_commutes_with_a_pointwise_convolution(
    dim: int, groups: int, ins: int, outs: int, hidden: int, bias: bool, se_bias: bool, layers: str
) -> None:
    """The paper's equations 2 to 4 on the output, and gates from the input: identity 2 of the design."""
    conv = CONVOLUTIONS[dim](groups * ins, groups * outs, 1, groups=groups, bias=bias).double()
    norm = randomise(NORMS[dim](groups * outs)).double().eval()
    se = SqueezeExcitation(groups * outs, hidden_channels=hidden, bias=se_bias, gain=1.5).double().eval()
    x = torch.randn(2, groups * ins, *[4] * dim, dtype=torch.float64)
    folded = fold_into(conv, affine_of(norm))
    (unit,) = find_se(se)
    (read,) = read_excitations(unit, dim)
    forms = Forms("mean", layers)  # type: ignore[arg-type]
    moved = PointwiseSE(folded, read.gates_before(dense_rows(folded), folded.bias.detach(), forms))
    y = norm(conv(x))
    expected = se(y)
    assert_close(moved(x), expected, 1e-12)
    assert_close(InferenceSE(read.gates(forms))(y), expected, 1e-12)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_rows_of_groups_are_zero_between_groups(groups: int) -> None:
    conv = nn.Conv2d(2 * groups, 3 * groups, 1, groups=groups, bias=False).double()
    x = torch.randn(4, 2 * groups, dtype=torch.float64)
    assert_close(x @ dense_rows(conv).T, conv(x[:, :, None, None])[:, :, 0, 0], 1e-14)


def test_weights_keep_their_memory_format() -> None:
    conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    folded = fold_into(conv, affine_of(nn.BatchNorm2d(6).eval()))
    assert folded.weight.is_contiguous(memory_format=torch.channels_last)
