import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from senet import ModelFileError, create_model, insert, load, remove, save
from senet.graph.se_modules import find_se
from senet.insertion.sites import PLACEMENTS
from senet.model_file import FORMAT, is_model_file
from tests.helpers import randomise
from tests.slow import fast_if


def some(name: str = "resnet20", **options: object) -> nn.Module:
    return randomise(create_model(name, **options))


def other_head(name: str) -> nn.Module:
    model = some(name)
    model.reset_classifier(4)
    return model


def partly_removed() -> nn.Module:
    model = remove(some("se_resnet20"))
    insert(model, "post", at="layer2.1", squeeze="none", gate="relu")
    return insert(model, "standard", stages=4, reduction=2, bias=False, gate="tanh", init="paper")


def left_out(name: str, which: Callable[[str], bool]) -> nn.Module:
    """A library's network whose own SE is gone, in some places."""
    model = some(name, num_classes=3)
    for unit in find_se(model):
        if which(unit.name):
            model.set_submodule(unit.name, nn.Identity())
    return model


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "plain": some,
    "se": lambda: some("se_resnet20", num_classes=3, reduction=4),
    "grey": lambda: some("se_resnet20", in_channels=1),
    "no classifier": lambda: some("se_resnet20", num_classes=0),
    "options": lambda: some("se_resnet20", shortcut="projection", drop_path_rate=0.1),
    "pre-activation": lambda: some("se_preresnet110", placement="pre"),
    "removed": lambda: remove(some("se_resnet20")),
    "partly removed": partly_removed,
    "other head": lambda: other_head("se_resnet20"),
    "double": lambda: some("se_resnet20").double(),
    "timm": lambda: some("timm/resnet10t", num_classes=3, in_channels=1),
    "timm with se": lambda: some("se_timm/resnet10t", num_classes=3, placement="post"),
    "timm, tensors in no state dict": lambda: some("timm/resnetblur18", num_classes=3),
    "torchvision with se": lambda: some("se_torchvision/resnet18", num_classes=3, reduction=4),
    "timm, other head": lambda: other_head("se_timm/resnet10t"),
    "shufflenet": lambda: some("se_shufflenet", num_classes=3, drop_rate=0.2),
    "timm, all of its se left out": lambda: left_out("timm/seresnet50", lambda name: True),
    "torchvision, some se left out": lambda: left_out(
        "torchvision/mobilenet_v3_small", lambda name: "features.1." in name
    ),
    **{p: (lambda p=p: insert(some(), p, gate="hard_sigmoid", squeeze="max")) for p in PLACEMENTS},
    "windows": lambda: some("se_resnet20", window=(16, 24)),
    "all": lambda: insert(insert(some(), "post"), "standard"),
}


@pytest.mark.parametrize("name", NETWORKS)
@fast_if(lambda name: name not in ("pre-activation", "timm, all of its se left out", "double", "other head"))
def test_round_trip(tmp_path: Path, name: str) -> None:
    model = NETWORKS[name]().eval()
    model.pretrained_cfg |= {
        "label_names": list("abcdefghij")[: model.num_classes],
        "mean": (0.1, 0.2, 0.3),
        "input_size": (3, 40, 40),
    }
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert not any(module.training for module in loaded.modules())
    assert repr(loaded) == repr(model)
    expected = model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    assert all(p.requires_grad for p in loaded.parameters())
    channels: Any = model.in_channels
    x = torch.randn(2, channels, 32, 32, dtype=next(model.parameters()).dtype)
    assert torch.equal(loaded(x), model(x))
    assert loaded.pretrained_cfg == model.pretrained_cfg
    save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_channels_last_is_no_hindrance(tmp_path: Path) -> None:
    model = some("se_resnet20").to(memory_format=torch.channels_last).eval()
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors").to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays(tmp_path: Path, dtype: torch.dtype) -> None:
    model = some("se_resnet20").to(dtype).eval()
    save(model, tmp_path / "model.safetensors")
    loaded, stored = load(tmp_path / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    for key, value in model.state_dict().items():
        assert value.dtype == (torch.int64 if key.endswith("num_batches_tracked") else dtype)
        for tensor in (loaded.state_dict()[key], stored[key]):
            assert tensor.dtype == value.dtype, key
            assert torch.equal(tensor, value), key
    x = torch.randn(2, 3, 16, 16, dtype=dtype)
    assert torch.equal(loaded(x), model(x))


def test_file_is_plain_safetensors(tmp_path: Path) -> None:
    model = some("se_resnet20")
    save(model, tmp_path / "model.safetensors")
    assert is_model_file(tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert create_model("se_resnet20", weights=tmp_path / "model.safetensors")


def test_old_file_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save(some(), path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        Path(args[1]).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save(some(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def rewrite(path: Path, change: object) -> None:
    """Change what a model file says of itself."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["senet"])
    change(description)
    save_file(load_file(path), path, {"senet": json.dumps(description)})


def whole_numbers(path: Path) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({key: value.long() for key, value in load_file(path).items()}, path, metadata)


# Which would take a terabyte, if it were built before its tensors are looked at.
LARGE = {"name": "timm/resnet10t", "options": {}, "num_classes": 10**12, "in_channels": 3}


def without(path: Path, key: str) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({k: v for k, v in load_file(path).items() if k != key}, path, metadata)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "no file at"),
        (lambda p: p.write_bytes(b""), "not a model file of senet, or is truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "not a model file of senet, or is truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:50]), "not a model file of senet, or is truncated"),
        (lambda p: torch.save({}, p), "not a model file of senet"),
        (
            lambda p: save_file({"fc.weight": torch.zeros(2)}, p),
            "weights only; name their network, as in senet.create_model",
        ),
        (lambda p: save_file({}, p, {"senet": "{"}), "has an invalid description"),
        (lambda p: save_file({}, p, {"senet": "[1]"}), "has an invalid description"),
        (lambda p: save_file({}, p, {"senet": "[" * 99_999}), "has an invalid description"),
        (lambda p: save_file({}, p, {"senet": '{"format": "new"}'}), "has an invalid description"),
        (
            lambda p: rewrite(p, lambda d: d.update(format=FORMAT + 1, version="9.1")),
            f"written by senet 9.1 in format {FORMAT + 1}; this version reads formats up to {FORMAT}: upgrade senet",
        ),
        (lambda p: rewrite(p, lambda d: d.pop("se")), "does not describe a valid network: it lacks 'se'"),
        (
            lambda p: rewrite(p, lambda d: d["network"].update(name="resnet21")),
            "a valid network: unknown plain network 'resnet21'",
        ),
        (
            lambda p: rewrite(p, lambda d: d["network"].update(name="torchvision/regnet_y_400mf", num_classes=10**15)),
            "does not describe a valid network",
        ),
        (
            lambda p: rewrite(p, lambda d: d["network"].update(name="timm/resnet21")),
            "a valid network: unknown network 'timm/resnet21'; did you mean",
        ),
        (
            lambda p: rewrite(p, lambda d: d.update(se=[], network=LARGE)),
            "num_classes is 1,000,000,000,000, but no tensor of the file has that size",
        ),
        (lambda p: rewrite(p, lambda d: d["network"]["options"].update(stem="x")), "a valid network: unknown stem 'x'"),
        (
            lambda p: rewrite(p, lambda d: d["network"]["options"].update(units=[9])),
            "a valid network: unknown option 'units'",
        ),
        (lambda p: rewrite(p, lambda d: d["se"][0].update(name="layer9")), "a valid network: .*layer9"),
        (lambda p: rewrite(p, lambda d: d["se"][0]["options"].update(gate="g")), "a valid network: unknown gate 'g'"),
        (lambda p: rewrite(p, lambda d: d["se"].pop()), "does not fit the network: 4 unexpected"),
        (whole_numbers, "has parameters that are not floating-point numbers"),
        (
            lambda p: rewrite(p, lambda d: d["pretrained_cfg"].update(input_size=[3, 10**6, 10**6])),
            "input_size must be",
        ),
        (lambda p: rewrite(p, lambda d: d["pretrained_cfg"].update(input_size=[3, "a", 1])), "input_size must be"),
        (lambda p: rewrite(p, lambda d: d["pretrained_cfg"].update(crop_pct=0)), "crop_pct must be between"),
        (lambda p: rewrite(p, lambda d: d["pretrained_cfg"].update(label_names=["a"])), "label_names must have a name"),
        (lambda p: rewrite(p, lambda d: d["pretrained_cfg"].update(label_names=[None] * 10)), "label_names must have"),
        (lambda p: rewrite(p, lambda d: d["se"][0]["options"].update(window=[])), "network: window must have a length"),
        (lambda p: rewrite(p, lambda d: d["se"][0]["options"].update(window=[7, 0])), "window must have a length of 1"),
        (lambda p: without(p, "fc.bias"), "does not fit the network: 1 missing \\(fc.bias\\)"),
    ],
)
def test_refuses_to_load(tmp_path: Path, spoil: object, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save(some("se_resnet20"), path)
    spoil(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_refuses_to_save_what_it_could_not_rebuild(tmp_path: Path) -> None:
    changed = some()
    changed.layer1[0].conv1 = nn.Conv2d(16, 16, 5, padding=2)
    with pytest.raises(ModelFileError, match="changed in a way that a file cannot describe: .*1 unexpected"):
        save(changed, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_is_model_file(tmp_path: Path) -> None:
    assert not is_model_file(tmp_path / "missing")
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    assert not is_model_file(tmp_path / "bare.safetensors")


def test_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    model = some()
    model.pretrained_cfg["mean"] = torch.zeros(3)
    with pytest.raises(ModelFileError, match="mean must be a list of finite numbers, one for each channel, got tensor"):
        save(model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_refuses_to_save_what_it_would_refuse_to_load(tmp_path: Path) -> None:
    model = some()
    model.pretrained_cfg["label_names"] = ["a"]
    with pytest.raises(
        ModelFileError, match="a file cannot describe: label_names must have a name for each of 10 classes"
    ):
        save(model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def description_of(path: Path) -> dict[str, object]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["senet"])


def test_format_is_the_lowest_that_reads_a_file(tmp_path: Path) -> None:
    save(some("se_resnet20"), tmp_path / "a.safetensors")
    assert description_of(tmp_path / "a.safetensors")["format"] == 1
    assert "left_out" not in description_of(tmp_path / "a.safetensors")
    save(left_out("torchvision/mobilenet_v3_small", lambda name: "features.1." in name), tmp_path / "b.safetensors")
    description = description_of(tmp_path / "b.safetensors")
    assert description["format"] == 2
    assert description["left_out"] == ["features.1.block.1"]
    save(some("se_resnet20", window=16), tmp_path / "c.safetensors")
    assert description_of(tmp_path / "c.safetensors")["format"] == 3
    (name,) = description["left_out"]
    assert type(load(tmp_path / "b.safetensors").get_submodule(name)) is nn.Identity


@pytest.mark.parametrize("names", [["features.1"], ["features.1.block.0"], "features", [3], [["a"]]])
def test_refuses_to_leave_out_what_is_no_se(tmp_path: Path, names: object) -> None:
    path = tmp_path / "model.safetensors"
    save(left_out("torchvision/mobilenet_v3_small", lambda name: "features.1." in name), path)
    rewrite(path, lambda d: d.update(left_out=names))
    with pytest.raises(ModelFileError, match="does not describe a valid network: .*SE module to leave out"):
        load(path)


def test_identity_elsewhere_is_a_change_that_a_file_cannot_tell(tmp_path: Path) -> None:
    model = left_out("torchvision/mobilenet_v3_small", lambda name: "features.1." in name)
    model.features[2] = nn.Identity()
    with pytest.raises(ModelFileError, match="changed in a way that a file cannot describe"):
        save(model, tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=float("inf")), "format must be a whole number of 1 or more, got inf"),
        (
            lambda d: d["network"].update(in_channels=10**9),
            "in_channels is 1,000,000,000, but no tensor of the file has",
        ),
        (
            lambda d: d["network"].update(num_classes=10**9),
            "num_classes is 1,000,000,000, but no tensor of the file has",
        ),
        (lambda d: d["network"].update(in_channels=3.5), "in_channels must be a whole number, got 3.5"),
        (
            lambda d: d["se"][0]["options"].update(hidden_channels=10**9),
            "hidden_channels must be at most 65,536, got 10000",
        ),
        (lambda d: d["pretrained_cfg"].update(mean=None), "mean must be a list of finite numbers, .*, got None"),
        (lambda d: d["pretrained_cfg"].update(std=[0, 0, 0]), r"std must be above 0, got .0, 0, 0."),
        (lambda d: d["pretrained_cfg"].update(std=[float("nan")] * 3), "std must be a list of finite numbers, .*nan"),
        (lambda d: d["pretrained_cfg"].update(crop_pct=None), "crop_pct must be between 0.05 and 20, got None"),
        (lambda d: d["pretrained_cfg"].update(task="segment"), "unknown task 'segment'.*Choose from: classification, "),
        (lambda d: d["pretrained_cfg"].update(interpolation="x"), "unknown interpolation 'x'.*Choose from: nearest, "),
    ],
)
def test_hostile_numbers_are_refused_before_the_network_is_built(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save(some("se_resnet20"), path)
    rewrite(path, change)
    with pytest.raises(ModelFileError, match=rf"model\.safetensors .*{message}"):
        load(path)


def test_number_of_thousands_of_digits_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(some("se_resnet20"), path)
    with safe_open(path, "pt") as file:
        text = file.metadata()["senet"].replace('"format": 1', '"format": ' + "1" * 5000)
    save_file(load_file(path), path, {"senet": text})
    with pytest.raises(ModelFileError, match=r"model\.safetensors .*line 1 .*format.* has a number of 5,000 digits"):
        load(path)
