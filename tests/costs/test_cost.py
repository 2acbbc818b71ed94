import copy
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet.costs.cost import Cost, Part, cost
from senet.graph.se_modules import find_se
from senet.insertion.sites import PLACEMENTS
from senet.models import CATALOGUE, Network, ResNetSpec, create_model
from senet.nn.block import SqueezeExcitation


class Functional(nn.Module):
    """Operations that are no modules: a convolution, matrix products, a product with a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 3, 3, 3))
        self.vector = nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, padding=1, stride=2)
        z = y.flatten(2)
        return (z @ z.transpose(1, 2)).sum() + (z[0] @ self.vector).sum() + torch.einsum("ncl,nkl->nck", z, z).sum()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Tied(nn.Module):
    """One module in two places, and one weight in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1, bias=False)
        self.second = self.first
        self.third = nn.Conv2d(4, 4, 1, bias=False)
        self.third.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


def named(name: str, **options: Any) -> nn.Module:
    return create_model(name, **options)


NETWORKS = [
    pytest.param(lambda: named("se_resnet18"), (3, 64, 64), id="se_resnet18"),
    pytest.param(lambda: named("se_preresnet164"), (3, 16, 16), id="se_preresnet164"),
    pytest.param(lambda: named("se_resnet20", squeeze="none"), (3, 16, 16), id="no squeeze"),
    pytest.param(lambda: named("se_resnet20", window=16), (3, 24, 40), id="windows"),
    pytest.param(lambda: named("se_resnet20", placement="identity"), (3, 16, 16), id="identity"),
    pytest.param(torchvision.models.mobilenet_v3_small, (3, 64, 64), id="torchvision"),
    pytest.param(lambda: timm.create_model("regnety_002"), (3, 64, 64), id="timm"),
    pytest.param(Functional, (3, 16, 16), id="functional"),
    pytest.param(Attention, (6, 8), id="attention"),
    pytest.param(lambda: nn.Sequential(nn.Conv1d(3, 8, 5), SqueezeExcitation(8, 2)), (3, 16), id="1d"),
    pytest.param(lambda: nn.Sequential(nn.Conv3d(3, 8, 3), SqueezeExcitation(8, 2)), (3, 6, 7, 8), id="3d"),
    pytest.param(lambda: nn.ConvTranspose2d(3, 8, 4, stride=2), (3, 6, 6), id="transposed"),
    pytest.param(Tied, (4, 6, 6), id="tied"),
]


def flops(model: nn.Module, size: tuple[int, ...]) -> int:
    """By PyTorch, on tensors with values; and by hand what it has no formula for."""
    more = {
        torch.ops.aten.mv: lambda a, b, **_: 2 * a[0] * a[1],
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, *_, **__: (
            4 * q[0] * q[1] * q[2] ** 2 * q[3]
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        model.eval()(torch.randn(1, *size))
    return counter.get_total_flops()


@pytest.mark.parametrize(("build", "size"), NETWORKS)
def test_multiply_adds_are_half_of_what_pytorch_counts(build: Any, size: tuple[int, ...]) -> None:
    model = build()
    found = cost(model, size, activations=False)
    assert 2 * found.macs == flops(model, size)
    assert found.params == sum(p.numel() for p in model.parameters())
    for part in ("plain", "se"):
        assert Part.total(getattr(block, part) for block in found.blocks) == getattr(found, part)
    units = find_se(model)
    assert found.se_params == sum(p.numel() for unit in units for p in unit.module.parameters())
    assert [site for block in found.blocks for site in block.sites] == [unit.name for unit in units]
    assert (found.macs, found.other) == (found.plain.macs + found.se.macs, found.plain.other + found.se.other)


@pytest.mark.slow
@pytest.mark.parametrize("name", [row.se_name for row in CATALOGUE.values()])
def test_every_network_with_se(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        size = model.pretrained_cfg["input_size"]
        found = cost(model, size)
        assert 2 * found.macs == flops(model, size)
    units = find_se(model)
    assert units
    assert found.se_params == sum(p.numel() for unit in units for p in unit.module.parameters())
    assert found.se_macs == sum(2 * unit.channels * (unit.hidden_channels or 0) for unit in units)
    plain = cost(senet.remove(model), size)
    assert (plain.params, plain.macs, plain.se) == (found.plain.params, found.plain.macs, Part())
    assert plain.saved_bytes is not None
    assert found.saved_bytes is not None
    assert found.saved_bytes > plain.saved_bytes


@pytest.mark.parametrize(("placement", "reduction"), [("standard", 4), *((name, 16) for name in PLACEMENTS)])
def test_se_follows_the_formula(placement: str, reduction: int) -> None:
    """Section 3.2: (2/r) times the sum of C squared, as parameters and as multiply-adds."""
    with torch.device("meta"):
        model = create_model("se_resnet50", placement=placement, reduction=reduction, bias=False)
    found = cost(model, (3, 64, 64), activations=False)
    expected = 2 * sum(unit.channels**2 for unit in find_se(model)) // reduction
    assert (found.se_params, found.se_macs) == (expected, expected)
    assert found.plain == cost(senet.remove(model), (3, 64, 64), activations=False).plain
    assert all(block.name.startswith("layer") == bool(block.sites) for block in found.blocks)
    assert all(bool(block.sites) == bool(block.se.macs) for block in found.blocks)


def test_no_squeeze_multiplies_at_every_position() -> None:
    with torch.device("meta"):
        model = create_model("se_resnet20", squeeze="none", bias=False)
    found = cost(model, (3, 32, 32), activations=False)
    assert found.se_params == 2 * 3 * (16**2 + 32**2 + 64**2) // 16
    assert found.se_macs == 2 * 3 * (16**2 * 32**2 + 32**2 * 16**2 + 64**2 * 8**2) // 16


def test_windows_multiply_once_for_each_window() -> None:
    with torch.device("meta"):
        model = create_model("se_resnet20", window=(16, 64), bias=False)
    one = cost(model, (3, 16, 64), activations=False)
    assert one.se_macs == one.se_params
    assert cost(model, (3, 32, 32), activations=False).se_macs == 2 * 3 * (16**2 * 17 + 32**2 * 9 + 64**2 * 5) // 16


def test_blocks_of_a_residual_network() -> None:
    with torch.device("meta"):
        found = cost(create_model("se_resnet20"), (3, 32, 32), activations=False)
    active = [block for block in found.blocks if block.plain.macs]
    assert [block.name for block in active] == [
        "conv1",
        *(f"layer{stage}.{unit}" for stage in (1, 2, 3) for unit in range(3)),
        "fc",
    ]
    assert [block.stage for block in active] == [1, 2, 2, 2, 3, 3, 3, 4, 4, 4, None]
    assert [block.channels for block in active] == [16] * 4 + [32] * 3 + [64] * 3 + [10]
    assert [block.resolution for block in active] == [(32, 32)] * 4 + [(16, 16)] * 3 + [(8, 8)] * 3 + [()]
    # By hand: two 3x3 convolutions; two batch norms; two layers of SE with biases.
    assert active[1].plain.params == 2 * 9 * 16**2 + 4 * 16
    assert active[1].plain.macs == 2 * 9 * 16**2 * 32**2
    assert active[1].se.params == 2 * 16 + 16 + 1
    assert active[1].sites == ("layer1.0.bn2.se",)
    # Batch norm, ReLU, batch norm, the sum, ReLU; in SE the squeeze, ReLU, sigmoid and the scaling.
    assert active[1].plain.other == 5 * 16 * 32**2
    assert active[1].se.other == 16 + 1 + 16 + 16 * 32**2
    assert {block.name: block.plain.other for block in found.blocks}["bn1"] == 16 * 32**2


@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [
        ("resnet18", (3, 224, 224), {"conv1": 1, "layer1.0": 2, "layer4.1": 5, "fc": None}),
        ("resnet18", (3, 32, 32), {"layer4.1": 5}),
        ("preresnet110", (3, 32, 32), {"conv1": 1, "layer1.0": 2, "layer3.17": 4, "norm.0": 4}),
        ("timm/resnet18", (3, 224, 224), {"conv1": 1, "layer1.0": 2, "layer4.1": 5}),
        ("timm/regnety_002", (3, 224, 224), {"stem": 1, "s1": 2, "s3.b1": 4, "s4.b7": 5}),
        (
            "torchvision/vgg11_bn",
            (3, 224, 224),
            {"features.0": 1, "features.4": 2, "features.25": 5, "classifier.0": None},
        ),
        ("torchvision/mobilenet_v2", (3, 224, 224), {"features.0.0": 1, "features.2": 2, "features.17": 5}),
    ],
)
def test_stages_have_the_papers_numbers(name: str, size: tuple[int, ...], stages: dict[str, int | None]) -> None:
    library, _, plain = name.rpartition("/")
    with torch.device("meta"):
        if library == "timm":
            model = timm.create_model(plain)
        elif library == "torchvision":
            model = torchvision.models.get_model(plain)
        else:
            model = create_model(plain)
    found = {block.name: block.stage for block in cost(model, size, activations=False).blocks}
    assert {block: found[block] for block in stages} == stages


def test_se_of_other_libraries_is_counted_separately() -> None:
    with torch.device("meta"):
        theirs = cost(timm.create_model("seresnet50"), (3, 64, 64))
        ours = cost(create_model("se_resnet50", stride_in="conv2", pool="pad"), (3, 64, 64))
    assert (theirs.se_params, theirs.se_macs) == (ours.se_params, ours.se_macs)
    assert (theirs.plain.params, theirs.plain.macs) == (ours.plain.params, ours.plain.macs)
    # They save the normalized map in addition to their input.
    assert ours.saved_bytes is not None
    assert theirs.saved_bytes is not None
    assert theirs.saved_bytes > 1.2 * ours.saved_bytes


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    senet.set_fused("aten")


def saved(model: nn.Module, images: int, size: tuple[int, ...]) -> int:
    """On tensors with values: storages by their address, as long as the output's graph holds them."""
    held: weakref.WeakSet[Any] = weakref.WeakSet()

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor.detach()
            held.add(self)

    with saved_tensors_hooks(Held, lambda one: one.tensor):
        output = model.train()(torch.randn(images, *size))
    kept = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    storages = {one.tensor.untyped_storage().data_ptr(): one.tensor.untyped_storage().nbytes() for one in held}
    assert output.grad_fn is not None
    return sum(size for address, size in storages.items() if address not in kept)


def shallow(name: str) -> Network:
    """The row of a residual network with two units in each stage: every kind of unit, without its repetitions."""
    row = CATALOGUE[name]
    assert isinstance(row.spec, ResNetSpec)
    return replace(row, spec=replace(row.spec, units=(2,) * len(row.spec.units)))


@pytest.mark.parametrize("fused", ["aten", "off"])
@pytest.mark.parametrize("name", ["resnet20", "se_resnet20", "se_preresnet110"])
def test_saved_activations_are_those_of_a_training_step(
    name: str, fused: str, restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    senet.set_fused(fused)
    monkeypatch.setitem(CATALOGUE, "preresnet110", shallow("preresnet110"))
    model, size = create_model(name), (3, 16, 16)
    expected = (saved(copy.deepcopy(model), 5, size) - saved(copy.deepcopy(model), 3, size)) // 2
    assert cost(model, size).saved_bytes == expected


def test_fused_se_saves_next_to_nothing_more(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "resnet50", shallow("resnet50"))

    def kept(name: str) -> int:
        with torch.device("meta"):
            found = cost(create_model(name), (3, 224, 224)).saved_bytes
        assert found is not None
        return found

    plain = kept("resnet50")
    assert 1 < kept("se_resnet50") / plain < 1.01
    senet.set_fused("auto")  # large maps alone, as those of a usual batch are
    assert 1 < kept("se_resnet50") / plain < 1.01
    senet.set_fused(False)
    assert kept("se_resnet50") / plain > 1.2


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_the_network_is_unchanged() -> None:
    model = create_model("se_resnet20", placement="post")
    model.layer1.eval()
    model.bn1.momentum = None  # an average of all batches
    model.fc.requires_grad_(False)
    before, objects = state(model), [id(t) for t in (*model.parameters(), *model.buffers())]
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    random = torch.get_rng_state()
    cost(model, (3, 32, 32))
    assert [id(t) for t in (*model.parameters(), *model.buffers())] == objects
    assert [module.training for module in model.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert model.bn1.momentum is None
    assert not model.fc.weight.requires_grad
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)


def on_meta(name: str) -> Cost:
    with torch.device("meta"):
        return cost(create_model(name), (3, 64, 64))


def test_counts_on_the_meta_device_are_the_same() -> None:
    model = create_model("se_resnet18")
    assert on_meta("se_resnet18") == cost(model, (3, 64, 64))


def test_a_compiled_network_is_the_network_that_was_compiled() -> None:
    model = create_model("se_resnet20")
    compiled = torch.compile(model, backend="eager")
    assert cost(compiled, (3, 32, 32)) == cost(model, (3, 32, 32))


def test_within_inference_mode_and_without_gradients() -> None:
    expected = on_meta("se_resnet18")
    with torch.inference_mode():
        assert cost(create_model("se_resnet18"), (3, 64, 64)) == expected
    with torch.no_grad():
        assert on_meta("se_resnet18") == expected


def test_frozen_parameters_save_less() -> None:
    model = create_model("resnet20")
    everything = cost(model, (3, 32, 32)).saved_bytes
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    nothing = cost(model, (3, 32, 32))
    assert nothing.saved_bytes == 0
    model.fc.requires_grad_(True)
    assert cost(model, (3, 32, 32)).saved_bytes == 4 * 64  # what goes into the last layer
    assert everything is not None
    assert everything > 4 * 16 * 32**2


def test_half_precision_saves_half() -> None:
    with torch.device("meta"):
        single, half = (
            cost(create_model("resnet18").to(dtype), (3, 64, 64)) for dtype in (torch.float32, torch.bfloat16)
        )
    assert half.macs == single.macs
    assert half.saved_bytes is not None
    assert single.saved_bytes is not None
    assert 0.5 <= half.saved_bytes / single.saved_bytes < 0.6  # places of maxima in pooling stay whole numbers


def test_a_network_that_is_one_module() -> None:
    found = cost(nn.Conv2d(3, 8, 3), (3, 10, 10))
    (block,) = found.blocks
    assert (block.name, block.channels, block.resolution) == ("", 8, (8, 8))
    assert found.plain == Part(params=27 * 8 + 8, macs=27 * 8 * 64)
    alone = cost(SqueezeExcitation(32, 4), (32, 5, 5))
    assert (alone.params, alone.plain) == (alone.se_params, Part())
    assert alone.se_macs == 2 * 32 * 8


def test_a_module_that_never_runs_has_parameters_only() -> None:
    with torch.device("meta"):
        model = torchvision.models.googlenet(init_weights=False)
    blocks = {block.name: block for block in cost(model, (3, 224, 224), activations=False).blocks}
    aux = blocks["aux1"]
    assert (aux.stage, aux.channels, aux.plain.macs) == (None, None, 0)
    assert aux.plain.params == sum(p.numel() for p in model.aux1.parameters())


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Loud(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("model", "size", "error", "message"),
    [
        (
            "resnet18",
            (3, 32, 32),
            TypeError,
            "expected a network, a torch.nn.Module, got 'resnet18'; senet.create_model",
        ),
        (nn.ReLU(), (3, 2.5), TypeError, r"whole numbers \(C, \*spatial\), such as \(3, 224, 224\), got \(3, 2.5\)"),
        (nn.ReLU(), 224, TypeError, r"whole numbers .*, got 224"),
        (nn.ReLU(), (), ValueError, r"each 1 or more, such as \(3, 224, 224\), got \(\)"),
        (nn.ReLU(), (3, 0, 4), ValueError, r"each 1 or more, such as \(3, 224, 224\), got \(3, 0, 4\)"),
        (nn.Conv2d(3, 4, 1), (5, 8, 8), ValueError, r"Conv2d does not run on an input .*\(1, 5, 8, 8\).*input_size"),
        (
            Counting(),
            (3, 4, 4),
            ValueError,
            r"Counting has no fixed cost: .*aten.nonzero.*senet.cost\(model.backbone, ",
        ),
        (Loud(), (3, 4, 4), ValueError, r"Loud does not run on an input of the shape \(1, 3, 4, 4\) without values"),
    ],
)
def test_refuses(model: Any, size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cost(model, size)


def test_after_an_error_the_network_is_unchanged() -> None:
    model = create_model("se_resnet20")
    with pytest.raises(ValueError, match="does not run"):
        cost(model, (5, 32, 32))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_module_with_two_names_is_unchanged() -> None:
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    weight = shared.weight
    assert senet.cost(model, (4, 8, 8)).params == 20
    assert shared.weight is weight
    tied = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))
    tied[1].weight = tied[0].weight
    found = senet.cost(tied, (4, 8, 8))
    assert (found.params, found.macs) == (16, 2 * 16 * 64)
    assert tied[1].weight is tied[0].weight


def test_a_stage_is_that_of_the_mean_stride_over_all_axes() -> None:
    conv = partial(nn.Conv3d, kernel_size=3, padding=1)
    model = nn.Sequential(conv(3, 4, stride=2), conv(4, 4, stride=(1, 4, 4)), conv(4, 4, stride=(1, 4, 4)))
    # log2 of the strides (2, 2, 2), (2, 8, 8) and (2, 32, 32): means of 1, 7/3 and 11/3.
    assert [block.stage for block in senet.cost(model, (3, 8, 64, 64), activations=False).blocks] == [1, 2, 4]
