from typing import Any

import pytest
import torch
from torch import nn

from senet.utils.modes import evaluating, seeded


def fail_while_evaluating(model: nn.Module) -> None:
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError


def test_every_module_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2).eval(), nn.Dropout())
    with pytest.raises(KeyError):
        fail_while_evaluating(model)
    assert [module.training for module in model.modules()] == [True, False, True]


def test_numbers_of_a_seed_leave_the_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # CUDA would start, and warn, for all that are forked
    state = torch.get_rng_state()
    with seeded(7, torch.device("cpu")):
        found = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_generators_of_every_gpu_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    seeds: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.tensor)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: kept.append((int(state), device)))
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    with seeded(7, torch.device("cuda")):
        assert not kept
    assert (kept, seeds) == ([(0, 0), (1, 1)], [7])
