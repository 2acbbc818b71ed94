"""What is read of the layers of another library's SE module, against calling them."""

from collections.abc import Callable

import pytest
import torch
from timm.layers.activations import Sigmoid
from torch import Tensor, nn

from senet.nn.fused import excitation_of_layers, excite
from tests.helpers import assert_close

LAYERS: list[list[nn.Module]] = [
    [nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6), nn.Sigmoid()],
    [nn.Conv2d(6, 3, 1), nn.SiLU(), nn.Conv2d(3, 6, 1, bias=False), nn.Hardsigmoid()],
    [nn.Conv1d(6, 3, 1), nn.ReLU(inplace=True), nn.Conv1d(3, 6, 1), Sigmoid()],
]


def run(layers: list[nn.Module], z: Tensor) -> Tensor:
    axes = getattr(layers[0], "weight").ndim - 2  # noqa: B009
    return nn.Sequential(*layers)(z.reshape(*z.shape, *[1] * axes)).flatten(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("layers", LAYERS, ids=lambda layers: type(layers[0]).__name__)
def test_values_and_gradients(layers: list[nn.Module]) -> None:
    module = nn.Sequential(*layers).double()
    results = []
    for read in (True, False):
        z = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        block = excitation_of_layers(*layers)
        assert block is not None
        gates = excite(z, block) if read else run(layers, z)
        results.append([gates, *torch.autograd.grad(gates.square().sum(), [z, *module.parameters()])])
    for one, other in zip(*results, strict=True):
        assert_close(one, other)


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[3].register_forward_hook(lambda *args: None),
        lambda layers: setattr(layers[0], "forward", lambda x: x),
        lambda layers: layers.__setitem__(1, nn.Tanh()),
        lambda layers: layers.__setitem__(3, nn.Softmax(1)),
        lambda layers: layers.__setitem__(0, Doubled(6, 3, 1)),
        lambda layers: layers.__setitem__(0, nn.Conv2d(6, 3, 1, padding=1)),
        lambda layers: layers.__setitem__(0, nn.Conv2d(6, 3, 3, padding=1)),
        lambda layers: layers.__setitem__(0, nn.Conv2d(6, 3, 1, stride=2)),
        lambda layers: layers.__setitem__(0, nn.Conv2d(6, 3, 1, groups=3)),
        lambda layers: nn.utils.parametrizations.weight_norm(layers[2]),
    ],
)
def test_other_layers_are_not_read(change: Callable[[list[nn.Module]], object]) -> None:
    layers: list[nn.Module] = [nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 1), nn.Sigmoid()]
    assert excitation_of_layers(*layers) is not None
    change(layers)
    assert excitation_of_layers(*layers) is None


def test_hooks_on_all_modules() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        assert excitation_of_layers(*LAYERS[0]) is None
    finally:
        handle.remove()
