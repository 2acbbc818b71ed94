from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import senet
from senet import insert, remove
from tests.networks import FAMILIES


def build() -> nn.Module:
    return FAMILIES["ours basic"]()


def names(model: nn.Module, group: dict[str, Any]) -> set[str]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return {by_id[id(parameter)] for parameter in group["params"]}


def test_the_new_parameters_are_one_more_group_and_learn() -> None:
    model = build()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    optimizer.param_groups[0]["lr"] = 0.05  # as a schedule has left it
    assert insert(model, "post", reduction=2, optimizer=optimizer) is model
    assert len(optimizer.param_groups) == 2
    old, new = optimizer.param_groups
    assert names(model, new) == {name for name, _ in model.named_parameters() if ".se." in name}
    assert {key: value for key, value in new.items() if key != "params"} == {
        key: value for key, value in old.items() if key != "params"
    }
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters() if ".se.fc2" in name)


def test_each_parameter_is_added_once() -> None:
    model = build()
    optimizer = AdamW(model.parameters())
    for placement in ("standard", "pre", "identity"):
        insert(model, placement, optimizer=optimizer)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(optimizer.param_groups) == 4
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_weight_decay_is_that_of_weights_and_of_biases() -> None:
    model = build()
    weights = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = SGD([{"params": vectors, "weight_decay": 0.0}, {"params": weights, "weight_decay": 5e-4}], lr=0.1)
    insert(model, optimizer=optimizer)
    decay = {name: group["weight_decay"] for group in optimizer.param_groups for name in names(model, group)}
    added = {name: value for name, value in decay.items() if ".se." in name}
    assert added
    assert all(value == (5e-4 if name.endswith("weight") else 0.0) for name, value in added.items())


def test_options_are_those_of_the_unit_around() -> None:
    model = build()
    groups = [{"params": list(m.parameters()), "lr": lr} for m, lr in ((model.layer1, 0.01), (model.layer2, 0.02))]
    groups.append({"params": list(model.fc.parameters()), "lr": 0.5})
    optimizer = SGD(groups, lr=1.0)
    insert(model, optimizer=optimizer)
    rate = {name: group["lr"] for group in optimizer.param_groups for name in names(model, group)}
    assert {name: value for name, value in rate.items() if ".se." in name} == {
        name: 0.01 if name.startswith("layer1") else 0.02 for name, _ in model.named_parameters() if ".se." in name
    }


def test_learning_rates_in_tensors_are_shared_and_not_only_equal() -> None:
    """A schedule fills each tensor by itself later: equal tensors of two groups are two rates."""
    model = build()
    rates = {name: torch.tensor(0.1) for name in ("layer1", "layer2", "fc")}
    groups = [{"params": list(getattr(model, name).parameters()), "lr": rate} for name, rate in rates.items()]
    optimizer = AdamW(groups, foreach=True, capturable=True)
    insert(model, optimizer=optimizer)
    new = optimizer.param_groups[3:]
    assert [names(model, group) for group in new] == [
        {name for name, _ in model.named_parameters() if ".se." in name and name.startswith(layer)}
        for layer in ("layer1", "layer2")
    ]
    assert new[0]["lr"] is rates["layer1"]
    assert new[1]["lr"] is rates["layer2"]


def test_named_parameters_get_names() -> None:
    model = build()
    optimizer = SGD(model.named_parameters(), lr=0.1)
    insert(model, "pre", optimizer=optimizer)
    assert set(optimizer.param_groups[1]["param_names"]) == {n for n, _ in model.named_parameters() if ".se." in n}


def test_removed_parameters_stay_as_they_are() -> None:
    model = build()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    insert(model, init="paper", optimizer=optimizer)
    gone = [(p, p.detach().clone()) for n, p in model.named_parameters() if ".se." in n]
    remove(model)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(parameter, before) for parameter, before in gone)
    assert insert(model, optimizer=optimizer) is model  # and again


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (lambda model: "sgd", TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        (
            lambda model: SGD(build().parameters(), lr=1),
            ValueError,
            "SGD has none of this network's parameters: create it",
        ),
        (
            lambda model: torch.optim.LBFGS(model.parameters()),
            ValueError,
            "LBFGS supports only one parameter group: create it",
        ),
    ],
)
def test_refuses_before_anything_changes(optimizer: Any, error: type[Exception], message: str) -> None:
    model = build()
    keys = list(model.state_dict())
    made: Optimizer = optimizer(model)
    with pytest.raises(error, match=message):
        senet.insert(model, optimizer=made)
    assert list(model.state_dict()) == keys
