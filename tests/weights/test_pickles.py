"""What training scripts save next to weights is read without running any of it."""

import argparse
import collections
import datetime
import pathlib
import sys
import types
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import senet
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint


def save(path: Path, **around: object) -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2))
    torch.save({"state_dict": model.state_dict(), **around}, path)
    return model


@pytest.mark.parametrize(
    "around",
    [
        {"args": argparse.Namespace(lr=0.1, epochs=3, nested=argparse.Namespace(a=1), path=pathlib.Path("a"))},
        {"best_acc": np.float64(71.5), "epoch": np.int64(3), "flag": np.bool_(True), "half": np.float16(2)},
        {"big_endian": np.dtype(">f4").type(1.5), "array": np.arange(3), "text": np.str_("abc")},
        {
            "config": types.SimpleNamespace(lr=1),
            "when": datetime.datetime(2026, 1, 1),
            "logs": {"acc": [np.float32(1)]},
        },
        {"seen": collections.deque([1, 2], maxlen=5), "version": torch.__version__, "id": uuid.UUID(int=1)},
        {"history": collections.defaultdict(list, {"loss": [1.0]}), "counts": collections.Counter("ab")},
        {"frozen": frozenset({1}), "steps": range(3), "part": slice(1, 2)},
    ],
    ids=["Namespace", "scalars", "array", "record", "deque", "defaultdict", "builtins"],
)
def test_plain_objects_next_to_weights(around: dict[str, object], tmp_path: Path) -> None:
    """Version 0.1 reported that each of these files would run code."""
    there = save(tmp_path / "model.pth", **around)
    here = nn.Sequential(nn.Linear(3, 2))
    assert load_weights(here, tmp_path / "model.pth").covered == 100
    assert torch.equal(here[0].weight, there[0].weight)


def test_scalars_become_numbers(tmp_path: Path) -> None:
    save(tmp_path / "model.pth", acc=np.float64(71.5), epoch=np.int16(-3), args=argparse.Namespace(lr=0.1))
    around = open_checkpoint(tmp_path / "model.pth").contents.around[0]
    assert (around["acc"], around["epoch"]) == (71.5, -3)
    assert vars(around["args"]) == {"lr": 0.1}


class Trap(argparse.Namespace):
    """A class of the file's author, whose state would run code where it is imported."""


def test_hyperparameters_of_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dict of a class of its own, in a module that need not be installed."""
    module = types.ModuleType("lightning.fabric.utilities.data")
    kind = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.AttributeDict = kind  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        for parent in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
            patched.setitem(sys.modules, parent, types.ModuleType(parent))
        patched.setitem(sys.modules, module.__name__, module)
        there = save(tmp_path / "model.ckpt", hyper_parameters=kind(lr=0.1, deep=kind(a=1)), version=torch.__version__)
    here = nn.Sequential(nn.Linear(3, 2))
    assert load_weights(here, tmp_path / "model.ckpt").covered == 100
    assert torch.equal(here[0].weight, there[0].weight)


@pytest.mark.parametrize(
    ("value", "name"), [(Trap(lr=1), "test_pickles.Trap"), (pathlib.Path.cwd, "builtins.getattr|PosixPath")]
)
def test_names_what_is_no_plain_data(value: object, name: str, tmp_path: Path) -> None:
    save(tmp_path / "model.pth", args=value)
    with pytest.raises(ModelFileError, match=f"names .*({name}).*would run code.*save only its state_dict"):
        open_checkpoint(tmp_path / "model.pth")


def test_a_pickled_network_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match=r"names .*torch\.nn\.modules\.conv\.Conv2d.*model\.state_dict\(\)"):
        senet.load_weights(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "model.pth")


def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:  # what torch.jit.save writes, without its code
        for name in ("data.pkl", "constants.pkl", "version", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"")
    with pytest.raises(ModelFileError, match=r"is a TorchScript archive, which holds code.*torch\.jit\.load"):
        open_checkpoint(tmp_path / "model.pt")


def test_an_archive_that_swells_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """500 MB of pickled zeros from 0.5 MB take minutes to read."""
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N" * 3_000_000 + b".")
        archive.writestr("archive/version", "3")
    with pytest.raises(
        ModelFileError, match=r"bomb\.pth has .* bytes and unpacks to 3,000,00., so it was not read.*save"
    ):
        open_checkpoint(tmp_path / "bomb.pth")


def test_a_pickle_larger_than_any_description_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "large.pth", "w") as archive:
        archive.writestr("archive/data.pkl", bytes(2**26 + 1))
        archive.writestr("archive/version", "3")
    with pytest.raises(
        ModelFileError, match=r"large\.pth has 67,108,865 bytes next to its tensors, and 67,108,864 are"
    ):
        open_checkpoint(tmp_path / "large.pth")
