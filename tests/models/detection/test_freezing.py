"""Frozen stages and batch norms of a backbone."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from senet import SEBatchNorm, create_model
from tests.helpers import assert_close, randomise, shallow_resnet20
from tests.models.detection.small import SMALL, losses_of


def body_of(**options: Any) -> Any:
    with shallow_resnet20():
        return create_model("retinanet:se_resnet20", **SMALL, **options).backbone.body


def by_hand(module: nn.Module) -> None:
    """Replace batch norms by torchvision's frozen ones, with SE after them."""
    for name, child in module.named_children():
        if isinstance(child, SEBatchNorm | nn.BatchNorm2d):
            norm = FrozenBatchNorm2d(child.num_features, eps=1e-5).double()
            state = child.state_dict()
            norm.load_state_dict({key: state[key] for key in ("weight", "bias", "running_mean", "running_var")})
            setattr(module, name, nn.Sequential(norm, child.se) if isinstance(child, SEBatchNorm) else norm)
        else:
            by_hand(child)


@pytest.mark.parametrize("placement", ["standard", "conv3x3"])
def test_frozen_batch_norms_with_se_are_those_of_torchvision_followed_by_se(placement: str) -> None:
    frozen = randomise(body_of(freeze_bn=True, placement=placement)).double().train()
    expected = deepcopy(frozen)
    thawed = randomise(body_of(placement=placement)).double()
    thawed.load_state_dict(frozen.state_dict(), strict=False)
    expected = thawed.train()
    by_hand(expected)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    outputs = [model(one) for model, one in zip((frozen, expected), inputs, strict=True)]
    for actual, one in zip(*outputs, strict=True):
        assert_close(actual, one)
    for one in outputs:
        sum((map_.sin() * map_).sum() for map_ in one).backward()
    assert_close(inputs[0].grad, inputs[1].grad)
    gradients = [p.grad for p in frozen.parameters() if p.requires_grad]
    theirs = [p.grad for p in expected.parameters()]
    assert len(gradients) == len(theirs) > 10
    for actual, one in zip(gradients, theirs, strict=True):
        assert_close(actual, one)
    for name, buffer in frozen.named_buffers():
        assert torch.equal(buffer, before[name])


def trained(**options: Any) -> set[str]:
    body = body_of(**options)
    return {name.rpartition(".")[0].partition(".")[0] for name, p in body.named_parameters() if p.requires_grad}


def test_stages_are_frozen_from_the_stem() -> None:
    stages = {"layer2", "layer3"}
    assert trained() == trained(trainable_stages=3) == {"conv1", "bn1", "layer1", *stages}
    assert trained(trainable_stages=2) == stages
    assert trained(trainable_stages=1) == {"layer3"}
    assert trained(trainable_stages=0) == set()


def test_trainable_stages_are_torchvisions() -> None:
    with torch.device("meta"):
        for stages, first in enumerate(["", "layer4", "layer3", "layer2", "layer1", "conv1"]):
            body: Any = create_model("faster_rcnn:resnet18", trainable_stages=stages).backbone.body
            names = {name.partition(".")[0] for name, p in body.named_parameters() if p.requires_grad}
            children = [name for name, _ in body.named_children() if name not in ("relu", "maxpool")]
            assert names == set(children[children.index(first) :] if first else [])


def test_a_training_step_keeps_the_statistics_of_frozen_stages() -> None:
    with shallow_resnet20():
        model: Any = create_model("retinanet:se_resnet20", trainable_stages=1, **SMALL)
    before = {name: buffer.clone() for name, buffer in model.backbone.body.named_buffers()}
    losses_of(model)
    changed = {name for name, buffer in model.backbone.body.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed
    assert all(name.startswith("layer3.") for name in changed)
