import os
import pickle
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from senet.errors import ModelFileError
from senet.models import create_model
from senet.weights import fit, implied_options, read_checkpoint
from tests.helpers import randomise


def elsewhere(model: nn.Module, shortcut: str = "shortcut") -> dict[str, Tensor]:
    """A state dict as scripts for CIFAR write it, from DataParallel: other names for the same tensors."""
    names = ((".downsample.", f".{shortcut}."), ("fc.", "linear."))
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        state[f"module.{key}"] = value
    return state


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_names_of_elsewhere(tmp_path: Path, wrap: object, shortcut: str) -> None:
    model = randomise(create_model("resnet20", shortcut=shortcut)).eval()
    torch.save(wrap(elsewhere(model)), tmp_path / "model.th")
    weights = read_checkpoint(tmp_path / "model.th")
    assert implied_options(weights) == {"shortcut": shortcut}
    loaded = create_model("resnet20", weights=tmp_path / "model.th").eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), model(x))


def test_safetensors_and_old_checkpoints(tmp_path: Path) -> None:
    model = create_model("resnet20")
    state = {key: value for key, value in model.state_dict().items() if "num_batches_tracked" not in key}
    save_file(state, tmp_path / "weights.safetensors")
    loaded = create_model("resnet20", weights=str(tmp_path / "weights.safetensors"))
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())


def test_asked_for_architecture_is_not_overruled(tmp_path: Path) -> None:
    torch.save(elsewhere(create_model("resnet20", shortcut="projection")), tmp_path / "model.th")
    with pytest.raises(ModelFileError, match=r"12 unexpected \(layer2.0.downsample.0.weight; .*\.\.\.\)"):
        create_model("resnet20", weights=tmp_path / "model.th", shortcut="pad")


def test_none_stored_is_padding_in_every_network_of_cifar(tmp_path: Path) -> None:
    model = create_model("preresnet110", shortcut="pad")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert create_model("preresnet110", weights=tmp_path / "model.pth").spec.shortcut == "pad"
    large = {key: w for key, w in create_model("resnet18").state_dict().items() if "downsample" not in key}
    torch.save(large, tmp_path / "large.pth")
    with pytest.raises(ModelFileError, match=r"missing \(layer2.0.downsample.0.weight"):
        create_model("resnet18", weights=tmp_path / "large.pth")


def test_se_in_the_slot_of_a_skip_is_no_projection() -> None:
    assert implied_options(create_model("se_resnet20", placement="identity").state_dict())["shortcut"] == "pad"


class Hostile:
    """What runs when such a file is read with pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_a_file_never_runs_code(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "model.pth", tmp_path / "was_here"
    content = {"state_dict": {"conv1.weight": Hostile(trace)}}
    if how == "torch.save":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelFileError, match="would run code to be read, so it was not: save its state_dict alone"):
        read_checkpoint(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))  # it would have, elsewhere
    assert trace.exists()


def cut(path: Path) -> None:
    torch.save(create_model("resnet20").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no file at"),
        (lambda path: path.mkdir(), "no file at"),
        (lambda path: path.write_bytes(b""), "not a checkpoint, or is cut short|no checkpoint of plain tensors"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 99), "not a checkpoint|no checkpoint of plain tensors"),
        (cut, "is not a checkpoint, or is cut short"),
    ],
    ids=["missing", "folder", "empty", "png", "cut"],
)
def test_refuses_files(tmp_path: Path, suffix: str, write: object, message: str) -> None:
    path = tmp_path / f"model{suffix}"
    write(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {}}, {"epoch": 3}, torch.zeros(3)])
def test_refuses_what_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="holds no state dict: looked at the top and under state_dict and model"):
        read_checkpoint(tmp_path / "model.pth")


def test_fit_counts_and_names() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    weights = {key: value for key, value in model.state_dict().items() if key != "2.num_batches_tracked"}
    fit(weights, model, "it")
    del weights["1.weight"], weights["1.bias"]
    weights["0.weight"] = torch.zeros(5, 3)
    weights["head.weight"] = torch.zeros(1)
    with pytest.raises(ModelFileError) as caught:
        fit(weights, model, "it")
    assert str(caught.value) == (
        "it does not fit the network: 2 missing (1.weight; 1.bias), 1 unexpected (head.weight), "
        "1 of another shape (0.weight (5, 3), here (2, 3))"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_refuses_what_is_corrupt(tmp_path: Path, legacy: bool) -> None:
    """Whatever byte is wrong: a pickle that is corrupt raises all sorts of things."""
    path = tmp_path / "model.pth"
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    whole, refused = path.read_bytes(), 0
    assert read_checkpoint(path).keys() == state.keys()
    for at in torch.randint(len(whole), (300,)).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(ModelFileError):  # some bytes do not matter
            read_checkpoint(path)
            refused -= 1
        refused += 1
    assert refused > 30


def test_refuses_two_tensors_of_one_name(tmp_path: Path) -> None:
    """Or one of the two would be taken in silence."""
    torch.save({"fc.bias": torch.zeros(2), "module.linear.bias": torch.ones(2)}, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="has two tensors for fc.bias, under different names; remove one"):
        read_checkpoint(tmp_path / "model.pth")
