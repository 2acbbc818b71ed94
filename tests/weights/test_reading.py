"""Files of all sorts: read without running code of theirs, or refused with a reason."""

import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from senet.models import create_model
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint
from tests.helpers import noting


def test_safetensors_and_old_checkpoints(tmp_path: Path) -> None:
    model = create_model("resnet20")
    state = {key: value for key, value in model.state_dict().items() if "num_batches_tracked" not in key}
    save_file(state, tmp_path / "weights.safetensors")
    loaded = create_model("resnet20", weights=str(tmp_path / "weights.safetensors"))
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "old.pth")
    loaded = create_model("resnet20", weights=tmp_path / "old.pth")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())


def test_files_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they can be; and what was loaded is the network's own, so that the file may go."""
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "model.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load = torch.load
    mapped: list[bool] = []
    monkeypatch.setattr(torch, "load", noting(mapped, lambda *_, mmap, **options: mmap, load))
    for name in ("model.pth", "old.pth"):
        model = torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(3, 2)))
        load_weights(model, tmp_path / name)
        (tmp_path / name).write_bytes(b"")
        assert torch.equal(model.fc.weight, torch.ones(2, 3))
    assert mapped == [True, False]


def test_se_in_the_slot_of_a_skip_is_no_projection(tmp_path: Path) -> None:
    torch.save(create_model("se_resnet20", placement="identity").state_dict(), tmp_path / "model.pth")
    assert open_checkpoint(tmp_path / "model.pth").implied["shortcut"] == "pad"


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
    with pytest.raises(ModelFileError, match="reading it would run code, so it was not read: save only its state_dict"):
        open_checkpoint(path)
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
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "not a checkpoint, or is truncated|not a checkpoint of plain tensors"),
        (
            lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 99),
            "not a checkpoint",
        ),
        (cut, "is not a checkpoint, or is truncated"),
    ],
    ids=["missing", "folder", "empty", "png", "cut"],
)
def test_refuses_files(tmp_path: Path, suffix: str, write: object, message: str) -> None:
    path = tmp_path / f"model{suffix}"
    write(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {}}, {"epoch": 3}, torch.zeros(3)])
def test_refuses_what_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(
        ModelFileError, match="holds no state dict: searched the top level, state_dict_ema, model_ema, "
    ):
        open_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_refuses_what_is_corrupt(tmp_path: Path, legacy: bool) -> None:
    """Whatever byte is wrong: a pickle that is corrupt raises all sorts of things."""
    path = tmp_path / "model.pth"
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    whole, refused = path.read_bytes(), 0
    assert open_checkpoint(path).tensors.keys() == state.keys()
    for at in torch.randint(len(whole), (300,)).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(ModelFileError):  # some bytes do not matter
            open_checkpoint(path)
            refused -= 1
        refused += 1
    assert refused > 30


def test_refuses_two_tensors_of_one_name(tmp_path: Path) -> None:
    """Or one of the two would be taken in silence."""
    state = {"layer1.0.conv1.weight": torch.zeros(1, 1, 1, 1), "fc.bias": torch.zeros(2)}
    for other in ("module.linear.bias", "module.fc.bias"):
        torch.save({**state, "linear.weight": torch.ones(2, 2), other: torch.ones(2)}, tmp_path / "model.pth")
        with pytest.raises(ModelFileError, match="has two tensors for fc.bias.*; remove one"):
            open_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "3", "[" * 99_999, '{"network": 3, "se": []}', '{"network": {"name": "a", "options": 3}}'),
        *('{"network": {"options": {}}, "se": []}', '{"network": {"name": "a", "options": {}}}'),
        *(f'{{"network": {{"name": "a", "options": {{}}}}, "se": {se}}}' for se in ("3", "[3]", '[{"name": 1}]')),
    ],
)
def test_refuses_a_description_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    save_file({"fc.bias": torch.zeros(2)}, tmp_path / "model.safetensors", {"senet": text})
    with pytest.raises(ModelFileError, match="is not a checkpoint, or is truncated"):
        open_checkpoint(tmp_path / "model.safetensors")
