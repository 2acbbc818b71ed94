import pytest
import torch
from torch import nn

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.block import ACTIVATIONS
from senet.nn.initialization import expected_squeeze, open_units
from tests.nn.test_identity_start import biased


def test_what_is_expected_of_a_map() -> None:
    bn = biased(6)
    assert torch.equal(expected_squeeze(bn, "avg"), bn.bias)  # type: ignore[arg-type]
    assert torch.equal(expected_squeeze(bn, "max"), bn.bias + 2 * bn.weight.abs())  # type: ignore[arg-type]
    assert torch.equal(expected_squeeze(nn.BatchNorm2d(6, affine=False), "avg"), torch.zeros(6))  # type: ignore[arg-type]
    convolution = nn.Conv2d(3, 6, 3)
    assert torch.equal(expected_squeeze(convolution, "avg"), convolution.bias)  # type: ignore[arg-type]
    assert expected_squeeze(nn.ReLU(), "avg") is None
    assert expected_squeeze(nn.BatchNorm2d(6, device="meta"), "avg") is None
    fused = SEBatchNorm.from_batch_norm(bn, SqueezeExcitation(6))
    assert torch.equal(expected_squeeze(fused, "none"), bn.bias)  # type: ignore[arg-type]


def test_refuses_a_block_without_such_a_start() -> None:
    for options in ({"gate": "tanh"}, {"gain": 1.0}, {"gate": "relu", "bias": False}):
        with pytest.raises(
            ValueError,
            match=r"gate '\w+' with gain=1 and bias=\w+ has no identity initialization.*build the block with",
        ):
            SqueezeExcitation(16, **options).initialize_as_identity()  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_only_activations_with_a_flat_side_are_opened(activation: str) -> None:
    se = SqueezeExcitation(16, activation=activation, gain=2.0)
    se.initialize_as_identity()
    opened = activation in ("relu", "relu6", "hard_swish")
    assert bool((se.fc1.weight > 0).all()) == opened
    z = torch.rand(2, 16)
    assert torch.equal(se.excite(z), torch.ones(2, 16))
    se.excite(z).sum().backward()
    assert bool(se.fc2.weight.grad.any())


def test_magnitudes_are_those_of_he_initialization() -> None:
    """Signs alone differ, and the second unit, which is the negative of the first."""
    for channels in (16, 64):
        se = SqueezeExcitation(channels, gain=2.0)
        torch.manual_seed(3)
        se.initialize_as_identity()
        torch.manual_seed(3)
        expected = nn.init.kaiming_normal_(torch.empty(channels // 16, channels)).abs()
        if channels == 64:
            expected[1] = expected[0]
        assert torch.equal(se.fc1.weight.abs(), expected)
        assert torch.equal(se.fc1.bias, torch.eye(1, channels // 16)[0])


def test_a_mean_of_zero_counts_as_positive() -> None:
    fc1 = nn.Linear(3, 1, bias=False)
    open_units(fc1, torch.tensor([-1.0, 0.0, 1.0]))
    assert fc1.weight.sign().tolist() == [[-1.0, 1.0, 1.0]]
