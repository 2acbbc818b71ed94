"""What holds for every network that this package builds itself, on small ones of each kind."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models import FeatureListNet, group_parameters
from torch import nn

from senet.models import ResNet, ResNetSpec
from senet.models.base import Classifier, check_rate, convolution
from senet.models.bn_inception import BNInception, BNInceptionSpec, InceptionSpec
from senet.models.shake_shake import ShakeShake, ShakeShakeSpec
from senet.models.shufflenet import ShuffleNet, ShuffleNetSpec
from tests.helpers import assert_close, randomise
from tests.slow import fast_if

SIZE = 64
_RESNET = {"units": (2, 1), "widths": (8, 16), "stem": "conv3", "stem_channels": 8, "pool": "none"}
_SHAKE = {"units": (2, 1), "widths": (8, 16), "stem_channels": 8}
KINDS: dict[str, tuple[Callable[..., Classifier], Any]] = {
    "resnet": (ResNet, ResNetSpec(**_RESNET, channels=(8, 16), bottleneck=False)),
    "preresnet": (ResNet, ResNetSpec(**_RESNET, channels=(16, 32), bottleneck=True, preactivation=True)),
    "bn_inception": (
        BNInception,
        BNInceptionSpec(
            stem=(8, 8, 16),
            modules=(
                ("3a", InceptionSpec(4, 4, 8, 4, 8, 4)),
                ("3b", InceptionSpec(0, 4, 8, 4, 8, 0, pool="max", stride=2)),
                ("4a", InceptionSpec(8, 4, 8, 4, 8, 4, pool="max")),
            ),
        ),
    ),
    "shufflenet": (ShuffleNet, ShuffleNetSpec(units=(2, 2), channels=(24, 48), stem_channels=12)),
    "shake-shake": (ShakeShake, ShakeShakeSpec(**_SHAKE, channels=(8, 16))),
    "shake-even": (
        ShakeShake,
        ShakeShakeSpec(
            **_SHAKE,
            channels=(16, 32),
            bottleneck=True,
            groups=4,
            preactivation=False,
            shortcut="projection",
            backward="even",
        ),
    ),
}


def build(kind: str, **options: int) -> Classifier:
    network, spec = KINDS[kind]
    return network(spec, **{"num_classes": 5, **options})


def images(channels: int = 3, **options: Any) -> torch.Tensor:
    return torch.randn(2, channels, SIZE, SIZE, **options)


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_learns(kind: str) -> None:
    model = build(kind, in_channels=1)
    logits = model(images(1))
    assert logits.shape == (2, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@every_kind
def test_what_timms_users_expect(kind: str) -> None:
    model = randomise(build(kind)).eval()
    x = images()
    features = model.forward_features(x)
    assert features.shape[1] == model.num_features
    assert torch.equal(model.forward_head(features), model(x))
    pooled = model.forward_head(features, pre_logits=True)
    assert_close(pooled, features.mean((2, 3)), 1e-5)
    assert torch.equal(model.get_classifier()(pooled), model(x))
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.num_classes == model.pretrained_cfg["num_classes"] == 7
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    assert build(kind, num_classes=0)(x).shape == pooled.shape


@every_kind
def test_features_are_the_maps_that_feature_info_tells_of(kind: str) -> None:
    model = randomise(build(kind)).eval()
    x = images()
    expected = {}
    for info in model.feature_info:

        def keep(module: nn.Module, args: object, output: torch.Tensor, name: str = info["module"]) -> None:
            expected[name] = output.clone()  # what is next may change it in place

        model.get_submodule(info["module"]).register_forward_hook(keep)
    last = model.forward_features(x)
    maps = list(expected.values())
    for info, (name, value) in zip(model.feature_info, expected.items(), strict=True):
        assert (info["module"], info["num_chs"]) == (name, value.shape[1])
        assert info["reduction"] == SIZE // value.shape[2]
    assert last.shape == maps[-1].shape
    for actual, value in zip(FeatureListNet(model, out_indices=tuple(range(len(maps))))(x), maps, strict=True):
        assert torch.equal(actual, value)


@every_kind
def test_gradient_checkpointing_changes_no_gradient(kind: str) -> None:
    """Of a network in training: what is drawn at random is drawn the same when a unit is run again."""
    model = randomise(build(kind)).double()
    other = copy.deepcopy(model)
    model.set_grad_checkpointing()
    runs = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda module, args, name=name: runs.append(name))
    x = images(dtype=torch.float64)
    for network in (model, other):
        torch.manual_seed(1)
        network(x).square().sum().backward()
    assert {name: runs.count(name) for name in runs} == {
        name: 1 if name.startswith("conv") else 2 for name in dict.fromkeys(runs)
    }
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        assert_close(parameter.grad, twin.grad)


@every_kind
def test_group_matcher_covers_every_parameter(kind: str) -> None:
    model = build(kind)
    names = {key for key, _ in model.named_parameters()}
    sizes = []
    for coarse in (True, False):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        assert {key for keys in groups.values() for key in keys} == names
        assert set(groups[max(groups)]) >= {"fc.weight", "fc.bias"}
        assert "conv1" in " ".join(groups[min(groups)])
        sizes.append(len(groups))
    assert sizes[0] == 2 + 2  # the stem, two stages, the head
    assert sizes[1] > sizes[0]


@every_kind
def test_has_no_tensors_on_the_meta_device(kind: str) -> None:
    with torch.device("meta"):
        model = build(kind)
        assert model(images()).shape == (2, 5)
    assert all(p.is_meta for p in model.parameters())
    assert [p.shape for p in model.parameters()] == [p.shape for p in build(kind).parameters()]


@every_kind
def test_stays_in_the_channels_last_format(kind: str) -> None:
    model = randomise(build(kind)).double().eval()
    x = images(dtype=torch.float64)
    expected = model.forward_features(x)
    model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    features = model.forward_features(x)
    assert_close(features, expected)
    assert features.is_contiguous(memory_format=torch.channels_last)
    kept = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    model.train()(x)
    assert kept
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in kept)


@every_kind
def test_is_copied_and_pickled(kind: str) -> None:
    model = randomise(build(kind)).eval()
    x = images()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
    fresh = build(kind)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x), model(x))


@every_kind
def test_is_traced_and_follows_the_mode(kind: str, traced: None) -> None:
    model = randomise(build(kind)).double().eval()
    x = images(dtype=torch.float64)
    graph = torch.fx.symbolic_trace(model)
    assert_close(graph(x), model(x))
    assert_close(pickle.loads(pickle.dumps(graph))(x), model(x))
    expected = copy.deepcopy(model).train()
    torch.manual_seed(1)
    value = expected(x)
    torch.manual_seed(1)
    assert_close(graph.train()(x), value)


@every_kind
@fast_if(lambda kind: kind not in ("bn_inception", "shake-even", "shufflenet"))
def test_is_exported(kind: str, traced: None) -> None:
    model = randomise(build(kind)).double().eval()
    x = images(dtype=torch.float64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("N", max=8)},))
    assert_close(program.module()(x[:1]), model(x[:1]))


@every_kind
def test_he_initialization(kind: str) -> None:
    """Of every convolution, by what leaves it, and of the classifier, which starts without bias."""
    model = build(kind, num_classes=1000)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            spread = (2 / (module.out_channels * module.weight[0, 0].numel())) ** 0.5
            values = module.weight.numel()
            assert float(module.weight.detach().std()) == pytest.approx(spread, rel=5 / (2 * values) ** 0.5), name
    assert float(model.fc.weight.detach().std()) == pytest.approx(model.num_features**-0.5, rel=0.05)
    assert not model.fc.bias.any()


@every_kind
def test_refuses(kind: str) -> None:
    with pytest.raises(ValueError, match="in_channels must be 1 or more, got 0; 3 for RGB"):
        build(kind, in_channels=0)
    with pytest.raises(ValueError, match="num_classes must be 0 or more, got -1"):
        build(kind, num_classes=-1)
    with pytest.raises(ValueError, match="unknown global_pool 'max'.*forward_features"):
        build(kind).reset_classifier(3, global_pool="max")
    spec = KINDS[kind][1]
    with pytest.raises(ValueError, match="drop_rate must be 0 or more and below 1, got 1.0"):
        type(spec)(**{**vars(spec), "drop_rate": 1.0})


@every_kind
def test_drops_before_the_classifier(kind: str) -> None:
    network, spec = KINDS[kind]
    model = network(type(spec)(**{**vars(spec), "drop_rate": 0.5}), num_classes=0)
    features = torch.ones(1, model.num_features, 2, 2)
    assert set(model.forward_head(features).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(model.eval().forward_head(features), features[:, :, 0, 0])


def test_a_classifier_alone_has_no_trunk() -> None:
    class Headless(Classifier):
        def __init__(self) -> None:
            super().__init__(3)
            self.conv1 = convolution(3, 8, 1)
            self._add_head(8, 2, 0.0)

    with pytest.raises(NotImplementedError):
        Headless()(images())


def test_convolutions_keep_the_size_but_for_their_stride() -> None:
    x = torch.randn(1, 4, 9, 8)
    for kernel in (1, 3, 7):
        for stride, groups, size in ((1, 1, (9, 8)), (2, 4, (5, 4))):
            layer = convolution(4, 8, kernel, stride, groups)
            assert layer.bias is None
            assert layer.weight.shape == (8, 4 // groups, kernel, kernel)
            assert layer(x).shape == (1, 8, *size)
            # The padding by hand, centred on the pixel.
            padded = nn.functional.pad(x, [kernel // 2] * 4)
            assert_close(layer(x), nn.functional.conv2d(padded, layer.weight, stride=stride, groups=groups), 1e-6)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_are_below_1(rate: float) -> None:
    with pytest.raises(ValueError, match=f"some_rate must be 0 or more and below 1, got {rate}"):
        check_rate("some_rate", rate)
