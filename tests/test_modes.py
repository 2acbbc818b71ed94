import pytest
from torch import nn

from senet.modes import evaluating


def fail_while_evaluating(model: nn.Module) -> None:
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError


def test_every_module_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2).eval(), nn.Dropout())
    with pytest.raises(KeyError):
        fail_while_evaluating(model)
    assert [module.training for module in model.modules()] == [True, False, True]
