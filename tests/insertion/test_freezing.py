import copy
import pickle

import pytest
import torch
from torch import nn

import senet
from senet.nn.inserted_se import find_inserted_se, se_parameters


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.Dropout2d(),
        nn.BatchNorm2d(8),
    )


def with_se() -> nn.Module:
    return senet.insert(network(), at=["1", "3"], reduction=4)


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def train_step(model: nn.Module) -> None:
    model.train()
    optimizer = torch.optim.SGD(senet.param_groups(model, lr=0.1, se_lr=1.0), momentum=0.9)
    for _ in range(2):  # the first step of an identity start changes the last layers only
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8) + 1).pow(2).sum().backward()
        optimizer.step()


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize(
    "copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["itself", "copy", "pickle"]
)
def test_only_se_changes_in_training(copied) -> None:  # type: ignore[no-untyped-def]
    frozen = senet.freeze_except_se(with_se())
    model = copied(frozen)
    before = values(model)
    train_step(model)
    names = {key for key in before if ".se.fc" in key}
    assert len(names) == 8
    assert changed(model, before) == names
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names
    norms = [m for m in model.modules() if hasattr(m, "running_mean")]
    assert len(norms) == 3
    assert not any(norm.training for norm in norms)
    assert all(insertion.se.training for insertion in find_inserted_se(model))
    assert model.get_submodule("5").training  # dropout follows the mode
    if model is not frozen:
        assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


def test_returns_the_model_and_unfreeze_undoes_it() -> None:
    model = with_se()
    model.get_submodule("0").requires_grad_(False)
    was = [parameter.requires_grad for parameter in model.parameters()]
    assert senet.freeze_except_se(model) is model
    assert senet.freeze_except_se(model) is model  # twice is once
    assert senet.unfreeze(model) is model
    assert [parameter.requires_grad for parameter in model.parameters()] == was
    before = values(model)
    train_step(model)
    assert {key.partition(".")[0] for key in changed(model, before)} == {"1", "3", "4", "6"}
    assert model.get_submodule("1").training
    plain = network().train()
    assert vars(model.get_submodule("6")).keys() == vars(plain[6]).keys()
    assert senet.unfreeze(plain) is plain


def test_statistics_stay_when_se_is_inserted_or_removed_in_a_frozen_network() -> None:
    model = senet.insert(senet.freeze_except_se(senet.insert(network(), at="1", reduction=4)), at="6", reduction=4)
    assert not model.train().get_submodule("6").training
    senet.remove(model)
    assert [m.training for m in model.train().children()] == [True, False, True, True, False, True, False]
    senet.unfreeze(model)
    assert all(m.training for m in model.train().modules())


def test_statistics_stay_when_norms_are_synchronized() -> None:
    model = senet.convert_sync_batchnorm(senet.freeze_except_se(with_se()))
    norm = model.train().get_submodule("6")
    assert isinstance(norm, nn.SyncBatchNorm)
    assert [m.training for m in model.children()] == [True, False, True, True, False, True, False]
    assert senet.unfreeze(model).train().get_submodule("6").training


def test_frozen_se_stays_frozen() -> None:
    model = with_se()
    model.get_submodule("1.se.fc1").requires_grad_(False)
    senet.freeze_except_se(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"{site}.{layer}.{kind}"
        for site, layer in (("1.se", "fc2"), ("3.standard.se", "fc1"), ("3.standard.se", "fc2"))
        for kind in ("weight", "bias")
    }


def test_a_network_without_se_or_in_a_wrapper_is_refused_unchanged() -> None:
    plain = network()
    with pytest.raises(
        ValueError, match=r"the network has no SE that senet inserted; call senet.insert\(model\) first"
    ):
        senet.freeze_except_se(plain)
    assert all(parameter.requires_grad for parameter in plain.parameters())
    model = with_se()
    with pytest.raises(ValueError, match=r"freeze first, then wrap, torch.compile\(senet.freeze_except_se\(model\)\)"):
        senet.freeze_except_se(torch.compile(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_frozen_network_keeps_its_function_in_training() -> None:
    model = senet.freeze_except_se(with_se())
    model.get_submodule("5").p = 0.0
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.train()(x), model.eval()(x))
    assert len(se_parameters(model)) == 8
