"""Statistics of gates during training, against NumPy's of the gates that the modules return."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import senet
from senet.graph.se_modules import find_se
from senet.utils.errors import GatesError
from tests.helpers import randomise
from tests.training.small import small_network


class Log:
    """What was logged, by step."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        self.steps[step] = dict(metrics)


def networks() -> dict[str, nn.Module]:
    identity = senet.insert(small_network(se=False), reduction=4, init="identity")
    relu = senet.insert(small_network(se=False), reduction=4, gate="relu", init="paper")
    positions = senet.insert(small_network(se=False), reduction=4, squeeze="none", init="paper")
    se_of_timm = timm.create_model("test_efficientnet", num_classes=3)
    found = {"paper": small_network(), "identity": identity, "relu": relu, "positions": positions, "timm": se_of_timm}
    return {name: randomise(model).train() for name, model in found.items()}


def hooks_on(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def train_step(model: nn.Module, x: Tensor, rate: float = 0.01) -> None:
    model(x).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(rate * parameter.grad)
    model.zero_grad()


@pytest.mark.parametrize("name", ["paper", "identity", "relu", "positions", "timm"])
def test_values(name: str) -> None:
    model, log, x = networks()[name], Log(), torch.randn(4, 3, 32, 32)
    gates: dict[str, Any] = {}
    units = {unit.name: unit for unit in find_se(model)}
    for unit in units.values():
        unit.gate.register_forward_hook(lambda module, args, out, name=unit.name: gates.update({name: out}))
    with senet.GateMonitor(model, log) as monitor:
        model(x)
        monitor.step()
    assert log.steps == {1: monitor.metrics}
    names = ["mean", "std", "std_images", "saturated"]
    assert list(monitor.metrics) == [f"gates/{unit}/{name}" for unit in units for name in names]
    for unit in units.values():
        s = (gates[unit.name].detach().double() * unit.gain).flatten(1).numpy()
        saturated = s == 0 if name == "relu" else (s <= 0.01 * unit.gain) | (s >= 0.99 * unit.gain)
        expected = [s.mean(), s.std(), s.std(0).mean(), saturated.mean()]
        found = [monitor.metrics[f"gates/{unit.name}/{name}"] for name in names]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    if name == "relu":
        assert any(value > 0 for key, value in monitor.metrics.items() if key.endswith("saturated"))


def test_saturated_gates_are_counted() -> None:
    model = small_network().train()
    se = next(module for module in model.modules() if isinstance(module, senet.SqueezeExcitation))
    nn.init.zeros_(se.fc2.weight)
    with torch.no_grad():
        se.fc2.bias.copy_(torch.tensor([-9.0, 9.0, 0.0, 0.0] * 2))
    with senet.GateMonitor(model, Log()) as monitor:
        model(torch.randn(2, 3, 8, 8))
        monitor.step()
    first = list(monitor.metrics.values())[:4]
    assert first[2] == 0  # constant gates
    assert first[3] == 0.5


def test_only_training_steps_at_the_interval_are_recorded() -> None:
    model, log = small_network().train(), Log()
    monitor = senet.GateMonitor(model, log, every=3)
    attached = []
    for _ in range(6):
        attached.append(hooks_on(model))
        model(torch.randn(2, 3, 8, 8))
        model.eval()
        model(torch.full((2, 3, 8, 8), 99.0))
        model.train()
        monitor.step()
    assert attached == [2, 0, 2, 0, 0, 2]
    assert list(log.steps) == [1, 3, 6]
    monitor.close()
    monitor.close()
    assert hooks_on(model) == 0


def test_calls_of_a_step_are_one_batch() -> None:
    model, x, found = small_network(), torch.randn(4, 3, 8, 8), []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | senet.SEBatchNorm):
            module.momentum = 0.0
    senet.freeze_batch_norm(model)  # the statistics of the parts would differ
    model.training = True
    for parts in (1, 2):
        with senet.GateMonitor(model, Log()) as monitor:
            for part in x.chunk(parts):
                model(part)
            monitor.step(step=7)
        found.append(monitor.metrics)
    for key, value in found[0].items():
        if not key.endswith("std_images"):  # the average of the parts
            assert found[1][key] == pytest.approx(value, rel=1e-5), key


def test_monitoring_changes_no_bit() -> None:
    results = []
    for every in (None, 1):
        model, x = small_network().train(), torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        monitor = None if every is None else senet.GateMonitor(model, Log(), every=every)
        for batch in x:
            train_step(model, batch)
            if monitor is not None:
                monitor.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


def test_what_is_refused() -> None:
    with pytest.raises(GatesError, match="a ResNet has no SE, and no gates to monitor; insert SE with senet.insert"):
        senet.GateMonitor(small_network(se=False), Log())
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        senet.GateMonitor(small_network(), Log(), every=0)
    with pytest.raises(TypeError, match="every must be an integer, got 2.5"):
        senet.GateMonitor(small_network(), Log(), every=2.5)
    with pytest.raises(TypeError, match=r"log must be a function of the metrics and the step, such as run.log, got 3"):
        senet.GateMonitor(small_network(), 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model must be an nn.Module, got 'se_resnet20'"):
        senet.GateMonitor("se_resnet20", Log())  # type: ignore[arg-type]
    model = small_network().eval()
    monitor = senet.GateMonitor(model, Log())
    model(torch.randn(2, 3, 8, 8))
    with pytest.raises(GatesError, match="give GateMonitor the network that is trained, not compiled"):
        monitor.step()
    assert hooks_on(model) == 0
