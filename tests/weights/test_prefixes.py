"""What wrappers put before names is removed, but not what a network itself has there."""

from pathlib import Path

import pytest
import torch
from torch import nn

from senet.models import create_model
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint
from tests.slow import fast_if

NAMES = [
    *("model", "module", "net", "network", "backbone", "encoder", "ema", "params", "weights"),
    *("_orig_mod", "model_state_dict", "n_averaged", "optimizer", "fc", "layer1"),
]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def holding(name: str, *more: str) -> nn.Module:
    model = nn.Module()
    for child in (name, *more):
        model.add_module(child, network())
    return model


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("wrap", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net.model."])
@pytest.mark.parametrize("name", NAMES)
@fast_if(lambda name, wrap: wrap in ("", "module._orig_mod.", "model."))
def test_children_of_any_name(name: str, wrap: str, tmp_path: Path) -> None:
    """A network loads its own weights, wrapped or not, whatever its children are called."""
    for more in ((), ("model",), ("head", "net")):
        there, here = holding(name, *(set(more) - {name})), holding(name, *(set(more) - {name}))
        state = {f"{wrap}{key}": value for key, value in there.state_dict().items()}
        for content in (state, {"state_dict": state, "epoch": 1}):
            torch.save(content, tmp_path / "model.pth")
            assert load_weights(here, tmp_path / "model.pth").covered == 100
            assert same(there, here)


@pytest.mark.parametrize(
    "prefix", ["backbone.", "encoder.", "student.backbone.", "my_network.", "module.encoder.model."]
)
def test_any_common_prefix(prefix: str, tmp_path: Path) -> None:
    there, here = network(), network()
    torch.save({f"{prefix}{key}": value for key, value in there.state_dict().items()}, tmp_path / "model.pth")
    assert load_weights(here, tmp_path / "model.pth").covered == 100
    assert same(there, here)
    resnet = create_model("resnet20", num_classes=7)
    torch.save({f"{prefix}{key}": value for key, value in resnet.state_dict().items()}, tmp_path / "model.pth")
    assert same(resnet, create_model("resnet20", weights=tmp_path / "model.pth"))


def test_a_prefix_that_does_not_help_is_named(tmp_path: Path) -> None:
    state = {f"encoder.{key}": value for key, value in network().state_dict().items() if key != "3.bias"}
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match=r"1 missing \(3.bias\).*the prefix 'encoder.' of all names was remov"):
        load_weights(network(), tmp_path / "model.pth")
    torch.save({f"encoder.{key}": torch.zeros(3) for key in "abc"}, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="all its names begin with 'encoder.'"):
        load_weights(network(), tmp_path / "model.pth")


def test_a_network_that_counts_as_averages_do(tmp_path: Path) -> None:
    there, here = network(), network()
    there.register_buffer("n_averaged", torch.tensor(3))
    here.register_buffer("n_averaged", torch.tensor(0))
    torch.save(there.state_dict(), tmp_path / "model.pth")
    assert load_weights(here, tmp_path / "model.pth").missing == ()
    assert int(here.n_averaged) == 3


def test_wrappers_of_the_target(tmp_path: Path) -> None:
    """Weights go into the network that a wrapper holds."""
    there, here = network(), network()
    torch.save(there.state_dict(), tmp_path / "model.pth")
    for wrapped in (
        nn.DataParallel(here),
        torch.compile(here, backend="eager"),
        torch.optim.swa_utils.AveragedModel(here),
    ):
        report = load_weights(wrapped, tmp_path / "model.pth")
        assert report.covered == 100
        assert all("module." not in name and "_orig_mod" not in name for name in report.loaded)
        inner = wrapped.module if hasattr(wrapped, "module") else here
        assert same(there, inner)


def test_parts_that_were_compiled_or_sharded(tmp_path: Path) -> None:
    there, here = network(), network()
    part = {"0": "0", "1": "1._orig_mod", "3": "_checkpoint_wrapped_module.3"}
    state = {}
    for key, value in there.state_dict().items():
        child, _, leaf = key.partition(".")
        state[f"_fsdp_wrapped_module.{part[child]}.{leaf}"] = value
    torch.save(state, tmp_path / "model.pth")
    assert load_weights(here, tmp_path / "model.pth").covered == 100
    assert same(there, here)


def test_torchvision_in_a_module_called_backbone(tmp_path: Path) -> None:
    """These are names of mmpretrain too, whose classifier is elsewhere."""
    state = create_model("resnet50", num_classes=3).state_dict()
    torch.save({f"backbone.{key}": value for key, value in dict(state).items()}, tmp_path / "model.pth")
    assert open_checkpoint(tmp_path / "model.pth").form.name == "torchvision/timm"


def test_spellings() -> None:
    from senet.weights.prefixes import name_candidates

    ways = name_candidates(["module.a.x", "module.a.b._orig_mod.y", "n_averaged"])
    assert list(ways[0].values()) == ["module.a.x", "module.a.b._orig_mod.y", "n_averaged"]
    assert ways[2] == {"module.a.x": "a.x", "module.a.b._orig_mod.y": "a.b.y"}
    assert ["x", "b.y"] in [list(way.values()) for way in ways]
