from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import senet
from senet.cli.common.networks import network_options, open_file
from senet.utils.errors import ModelFileError
from tests.helpers import randomise


def test_options() -> None:
    assert network_options(None) == {}
    settings = ["network.reduction=4", "network.placement=pre", "network.stages=[2, 3]", "network.reduction=8"]
    assert network_options(settings) == {"reduction": 8, "placement": "pre", "stages": [2, 3]}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=1", "--set lr=... is not an option of the network; write network.KEY=VALUE"),
        ("network.features_only=true", "features_only builds a network without classes"),
        ("reduction", "invalid --set 'reduction': expected KEY=VALUE"),
        ("net.reduction=4", "--set net.reduction=... is not an option of the network; write network.KEY=VALUE"),
    ],
)
def test_refuses_options(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_options([setting])


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda state: state, "bare.safetensors"),
        (lambda state: state, "bare.pth"),
        (lambda state: {"state_dict": {f"module.{key}": w for key, w in state.items()}, "epoch": 3}, "bare.th"),
        (lambda state: {key.replace("fc.", "linear."): w for key, w in state.items()}, "bare.pt"),
    ],
    ids=["safetensors", "plain", "module", "linear"],
)
def test_bare_weights_bring_their_number_of_classes(tmp_path: Path, wrap: object, name: str) -> None:
    assert callable(wrap)
    model = randomise(senet.create_model("resnet20", num_classes=7)).eval()
    write = save_file if name.endswith(".safetensors") else torch.save
    write(wrap(model.state_dict()), tmp_path / name)
    opened = open_file(str(tmp_path / name), "resnet20", None)
    assert not opened.training
    assert opened.num_classes == 7
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(opened(x), model(x))


def test_number_of_classes_that_is_asked_for_is_checked(tmp_path: Path) -> None:
    torch.save(senet.create_model("resnet20", num_classes=7).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ModelFileError, match=r"fc\.weight \(7, 64\), here \(10, 64\)"):
        open_file(str(tmp_path / "bare.pth"), "resnet20", ["network.num_classes=10"])


def test_weights_without_a_classifier_are_of_the_networks_own(tmp_path: Path) -> None:
    torch.save(senet.create_model("resnet20", num_classes=0).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ModelFileError, match=r"2 missing \(fc\.weight; fc\.bias\)"):
        open_file(str(tmp_path / "bare.pth"), "resnet20", None)
    assert open_file(str(tmp_path / "bare.pth"), "resnet20", ["network.num_classes=0"]).num_classes == 0


def test_a_model_file_says_itself_how_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"  # whatever it is called
    senet.save(senet.create_model("se_resnet20", num_classes=3, reduction=4), path)
    opened = open_file(str(path), None, None)
    assert (opened.num_classes, opened.layer1[0].bn2.se.hidden_channels) == (3, 4)
    for network, settings in (("resnet20", None), (None, ["network.reduction=8"])):
        with pytest.raises(ValueError, match="is a model file.*leave out --network, --set"):
            open_file(str(path), network, settings)


def test_the_checkpoint_of_a_run_lacks_the_preprocessing(tmp_path: Path) -> None:
    """Its network was scored on images of another size and mean."""
    torch.save({"model": senet.create_model("resnet20").state_dict()}, tmp_path / "checkpoint.pt")
    assert open_file(str(tmp_path / "checkpoint.pt"), "resnet20", None)
    senet.save(senet.create_model("resnet20"), tmp_path / "best.safetensors")
    with pytest.raises(ModelFileError, match=r"checkpoint.pt is the checkpoint of a run.*use .*best.safetensors"):
        open_file(str(tmp_path / "checkpoint.pt"), "resnet20", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("se_resnet20", "or weights, with --network se_resnet20$"),
        ("timm/efficientnet_b0", "or weights, such as timm:efficientnet_b0, with --network timm/efficientnet_b0$"),
        ("torchvision/resnet18", "or weights, such as torchvision:resnet18, with --network torchvision/resnet18$"),
        ("se_timm/resnet26d", "or weights, with --network se_timm/resnet26d$"),
        ("timm/efficientnet_bo", "unknown network 'timm/efficientnet_bo'; did you mean 'timm/efficientnet_b"),
    ],
)
@pytest.mark.parametrize("network", [None, "resnet20"])
def test_a_name_where_weights_are_needed(name: str, message: str, network: str | None) -> None:
    with pytest.raises(ValueError, match=message):
        open_file(name, network, None)


def test_a_file_with_the_name_of_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    model = senet.create_model("se_resnet20").eval()
    for name in ("se_resnet20", "timm/resnet18"):
        senet.save(model, name)
        assert torch.equal(open_file(name, None, None).fc.weight, model.fc.weight)
