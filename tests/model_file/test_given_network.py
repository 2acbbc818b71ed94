"""Files of networks that senet does not build: all weights, or SE only."""

import copy
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import senet
from senet import ModelFileError
from senet.model_file import FORMAT, is_model_file, requires_network
from senet.nn.inserted_se import find_inserted_se
from tests.cli.helpers import invoke
from tests.helpers import randomise


class Unit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class MyNet(nn.Module):
    """A user's own network, with two layers that share a weight."""

    def __init__(self, channels: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3)
        self.unit = Unit(channels)
        self.group = nn.GroupNorm(2, channels)
        self.fc = nn.Linear(channels, channels)
        self.tied = nn.Linear(channels, channels)
        self.tied.weight = self.fc.weight
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.group(self.unit(self.stem(x))).mean((2, 3))
        out: Tensor = self.head(self.tied(self.fc(y)))
        return out


def with_se() -> nn.Module:
    return copy.deepcopy(_with_se())


@cache
def _with_se() -> nn.Module:
    """SE on a batch norm, in an empty skip, at a module's output and at its input."""
    model = MyNet()
    senet.insert(model, gate="hard_sigmoid", reduction=4)
    senet.insert(model, "identity", squeeze="max", reduction=2)
    senet.insert(model, at="group", bias=False, init="paper", reduction=4)
    senet.insert(model, "pre", at="group", reduction=4)
    assert {insertion.how for insertion in find_inserted_se(model)} == {"batch_norm", "skip", "output", "input"}
    return randomise(model).eval()


def state_of(model: nn.Module) -> tuple[dict[str, Tensor], list[type], list[set[str]]]:
    """What must not change: tensors, classes of modules, and their attributes."""
    modules = list(model.modules())
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    return tensors, [type(module) for module in modules], [set(vars(module)) for module in modules]


def assert_same(model: nn.Module, before: tuple[dict[str, Tensor], list[type], list[set[str]]]) -> None:
    tensors, *rest = state_of(model)
    assert rest == [*before[1:]]
    assert tensors.keys() == before[0].keys()
    assert all(torch.equal(value, before[0][key]) for key, value in tensors.items())


def description_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["senet"])  # type: ignore[no-any-return]


X = torch.randn(2, 3, 12, 12)


def test_all_weights_load_into_the_users_network(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = with_se()
    senet.save(model, path)
    assert description_of(path)["format"] == 3
    assert is_model_file(path)
    assert requires_network(path)
    assert load_file(path).keys() == model.state_dict().keys()
    given = MyNet().train()
    loaded = senet.load(path, model=given)
    assert loaded is given
    assert not any(module.training for module in loaded.modules())
    assert repr(loaded) == repr(model)
    assert loaded.tied.weight is loaded.fc.weight
    assert torch.equal(loaded(X), model(X))
    senet.save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert senet.remove(loaded).state_dict().keys() == MyNet().state_dict().keys()


def test_se_alone_loads_into_a_network_with_its_own_weights(tmp_path: Path) -> None:
    path = tmp_path / "se.safetensors"
    model = with_se()
    senet.save(model, path, se_only=True)
    se = {key for key in model.state_dict() if ".se." in key}
    assert load_file(path).keys() == se
    plain = MyNet(classes=7).double()  # another head, and another dtype
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k not in se and "head" not in k}, strict=False
    )
    before = plain.state_dict()
    loaded = senet.load(path, model=plain)
    after = loaded.state_dict()
    assert {value.dtype for key, value in after.items() if "tracked" not in key} == {torch.float64}
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(torch.equal(after[key], model.state_dict()[key].double()) for key in se)


def deep(*depths: int, kernel: int = 3, classes: int = 3) -> nn.Sequential:
    """Stages of units, and a classifier."""
    stages = [nn.Sequential(*[Unit(8) for _ in range(depth)]) for depth in depths]
    return nn.Sequential(nn.Conv2d(3, 8, kernel), *stages, nn.Flatten(), nn.Linear(512, classes))


@pytest.mark.parametrize(
    ("stages", "other", "message"),
    [
        (3, deep(1, 1), "it has no '1.1.conv1.weight', as the network had from which SE was saved"),
        (None, deep(3, 1), "it has '1.2.conv1.weight', and the network from which SE was saved had not"),
        (None, deep(2, 2), "it has '2.1.conv1.weight', and the network"),
        (2, deep(3, 1), "it has '1.2.conv1.weight', and the network"),
        (3, deep(3, 1), "it has '1.2.conv1.weight', and the network"),
        (3, deep(2, 3), "it has '2.1.conv1.weight', and the network"),
        (None, deep(2, 1, kernel=5), "the shape of '0.weight' is .8, 3, 5, 5., and was"),
        (None, deep(2, 1, classes=9), ""),
        (None, deep(2, 1)[:-1], ""),
    ],
)
def test_se_of_another_network_is_refused(tmp_path: Path, stages: Any, other: nn.Module, message: str) -> None:
    path = tmp_path / "se.safetensors"
    senet.save(senet.insert(deep(2, 1), stages=stages, reduction=2), path, se_only=True)
    if not message:
        assert find_inserted_se(senet.load(path, model=other))
        return
    with pytest.raises(ModelFileError, match=message):
        senet.load(path, model=other)
    assert not find_inserted_se(other)


def test_a_named_network_gets_se_from_a_file_as_well(tmp_path: Path) -> None:
    model = randomise(senet.create_model("se_resnet20", num_classes=3)).eval()
    senet.save(model, tmp_path / "se.safetensors", se_only=True)
    senet.save(model, tmp_path / "all.safetensors")
    assert os.path.getsize(tmp_path / "se.safetensors") < os.path.getsize(tmp_path / "all.safetensors") / 8
    plain = senet.create_model("resnet20", num_classes=3)
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32)
    for path, network in (("se", plain), ("all", senet.create_model("resnet20", num_classes=3))):
        assert torch.equal(senet.load(tmp_path / f"{path}.safetensors", model=network)(x), model(x))
    assert not requires_network(tmp_path / "all.safetensors")


def test_weights_of_the_file_load_as_any_others(tmp_path: Path) -> None:
    model, path = with_se(), tmp_path / "model.safetensors"
    senet.save(model, path)
    other = randomise(copy.deepcopy(model))
    senet.load_weights(other, path)
    assert torch.equal(other(X), model(X))


def extra() -> nn.Module:
    class Extra(nn.BatchNorm2d):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

    return senet.insert(nn.Sequential(nn.Conv2d(3, 8, 1), Extra(8)), at="0")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            MyNet,
            {},
            "a MyNet cannot be saved here: it is not one of senet's named networks, and has no SE; call senet.ins",
        ),
        (MyNet, {"se_only": True}, "a MyNet cannot be saved here: it has no SE; call senet.insert first"),
        (lambda: senet.create_model("resnet20"), {"se_only": True}, "it has no SE; call senet.insert first"),
        (extra, {}, "'1._extra_state' of the state dict is a dict, and a model file holds tensors only"),
        (lambda: with_se().to("meta"), {}, "'stem.weight' is on the meta device and has no values"),
    ],
)
def test_refuses_to_save(tmp_path: Path, make: Callable[[], nn.Module], options: Any, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        senet.save(make(), tmp_path / "model.safetensors", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, "x.safetensors"), {}, "expected a network, a torch.nn.Module, got 3"),
        ((with_se(), 3), {}, r"path must be a path \(str or os.PathLike\), got 3"),
        ((with_se(), b"x"), {}, "path must be a path"),
        ((with_se(), "x.safetensors"), {"se_only": "no"}, "se_only must be True or False, got 'no'"),
    ],
)
def test_arguments_of_other_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, options: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=message):
        senet.save(*arguments, **options)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="path must be a path"):
        senet.load(3)  # type: ignore[arg-type]


def test_se_alone_is_saved_where_the_rest_is_not_tensors(tmp_path: Path) -> None:
    model = extra()
    senet.save(model, tmp_path / "se.safetensors", se_only=True)
    fresh = senet.remove(copy.deepcopy(model))
    assert torch.equal(senet.load(tmp_path / "se.safetensors", model=fresh)(X), model.eval()(X))


def replaced(name: str, module: nn.Module) -> nn.Module:
    model = MyNet()
    model.set_submodule(name, module)
    return model


def occupied_slot() -> nn.Module:
    model = MyNet()
    model.unit.downsample = nn.Identity()  # type: ignore[assignment]
    return model


def hooked() -> nn.Module:
    model = MyNet()
    model.unit.bn2.register_forward_hook(lambda *args: None)
    return model


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "channels": (lambda: MyNet(16), "'unit.bn2' .BatchNorm2d. has 16 channels, and SE has 8"),
    "no such module": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1)), "it has no module 'unit"),
    "kind of norm": (
        lambda: replaced("unit.bn2", nn.GroupNorm(2, 8)),
        "'unit.bn2' is a GroupNorm and not a plain batch",
    ),
    "norm with a hook": (hooked, "'unit.bn2' is a BatchNorm2d and not a plain batch norm"),
    "skip": (occupied_slot, "'unit.downsample' is not the empty slot of an identity skip"),
    "sequence": (lambda: replaced("group", nn.Sequential(nn.GroupNorm(2, 8))), "'group' is a sequence"),
    "kernel": (lambda: replaced("unit.conv1", nn.Conv2d(8, 8, 1)), "unit.conv1.weight"),
    "SE there": (with_se, "already has SE at '.*'; give the plain network, or call senet.remove first"),
    "meta device": (lambda: MyNet().to("meta"), "'stem.weight' is on the meta device, which has no memory"),
    "lazy": (lambda: replaced("head", nn.LazyLinear(3)), "'head.weight' of a lazy module is not created yet"),
}


@pytest.mark.parametrize("se_only", [False, True], ids=["all", "se only"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_network_is_refused_unchanged(tmp_path: Path, other: str, se_only: bool) -> None:
    path = tmp_path / "model.safetensors"
    senet.save(with_se(), path, se_only=se_only)
    make, message = OTHERS[other]
    model = make()
    before = None if other in ("meta device", "lazy") else state_of(model)
    with pytest.raises(ModelFileError, match=message) as caught:
        senet.load(path, model=model)
    assert str(path) in str(caught.value)
    if before is not None:
        assert_same(model, before)
    assert other == "SE there" or not find_inserted_se(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MyNet(classes=4), "2 of another shape .head.bias"),
        (lambda: replaced("head", nn.Identity()), "2 unexpected .head"),
        (lambda: replaced("head", nn.Sequential(nn.Linear(8, 3))), "2 missing .head.0"),
        (lambda: replaced("unit.bn1", nn.BatchNorm2d(8, track_running_stats=False)), "unexpected|in the file only"),
    ],
)
def test_other_tensors_are_refused_unchanged(tmp_path: Path, make: Callable[[], nn.Module], message: str) -> None:
    path = tmp_path / "model.safetensors"
    senet.save(with_se(), path)
    model = make()
    before = state_of(model)
    with pytest.raises(ModelFileError, match=message):
        senet.load(path, model=model)
    assert_same(model, before)


def test_a_function_is_no_network(tmp_path: Path) -> None:
    senet.save(senet.insert(MyNet(), at="unit.bn2"), tmp_path / "se.safetensors")
    with pytest.raises(TypeError, match=r"expected a network, a torch.nn.Module, got <class.*MyNet'>"):
        senet.load(tmp_path / "se.safetensors", model=MyNet)  # type: ignore[arg-type]


def test_a_wrapped_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    senet.save(with_se(), path)
    with pytest.raises(ValueError, match="DataParallel prefixes the names"):
        senet.load(path, model=nn.DataParallel(MyNet()))


@pytest.mark.parametrize("se_only", [False, True])
def test_the_network_is_required(tmp_path: Path, se_only: bool) -> None:
    path = tmp_path / "model.safetensors"
    senet.save(with_se(), path, se_only=se_only)
    what = "only SE" if se_only else "a tests.model_file.test_given_network.MyNet"
    with pytest.raises(
        ModelFileError, match=rf"holds {what}, and not how to build .*senet.load\(path, model=MyNet\(\)"
    ):
        senet.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=FORMAT + 1, version="9.1"), "written by senet 9.1 in format 5; this version reads"),
        (lambda d: d.update(new=1), "invalid description: expected the keys .*'around', 'class', .*, got .*'new'"),
        (lambda d: d.pop("around"), "invalid description: expected the keys"),
        (lambda d: d.update(around=[]), "se_only must be true or false, and around the shapes"),
        (lambda d: d.update(around={"unit.x": [1]}), "it has no 'unit.x', as the network had from which"),
        (lambda d: d.update(se_only=1), "se_only must be true or false"),
        (lambda d: d["se"][0].update(new=1), "SE at a site must have the keys"),
        (lambda d: d["se"][0].update(name=3), "SE at a site must have the keys"),
        (lambda d: d["se"][0].update(how="x"), "must be attached as batch_norm, input, output or skip, got 'x'"),
        (lambda d: d["se"][0]["options"].update(channels=10**9), "channels must be at most"),
        (lambda d: d["se"][0]["options"].update(new=1), "unexpected keyword argument 'new'"),
        (lambda d: d["se"].pop(), "unexpected"),
        (
            lambda d: next(e for e in d["se"] if e["how"] == "input").update(child="forward"),
            "unknown placement 'forward'",
        ),
        (lambda d: d.update(se=[*d["se"], d["se"][0]]), "are one module|is not the empty slot"),
        (lambda d: d.update(se=3), "invalid description"),
    ],
)
def test_hostile_descriptions_are_refused_unchanged(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "se.safetensors"
    senet.save(with_se(), path, se_only=True)
    description = description_of(path)
    change(description)
    save_file(load_file(path), path, {"senet": json.dumps(description)})
    model = MyNet()
    before = state_of(model)
    with pytest.raises(ModelFileError, match=message):
        senet.load(path, model=model)
    assert_same(model, before)


def test_commands_take_such_a_file_with_its_network(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text("import torchvision\n\ndef make():\n    return torchvision.models.resnet18(num_classes=3)\n")
    path = tmp_path / "se.safetensors"
    result = invoke("insert", f"{code}:make", "-o", path, "--at", "layer4.*")
    assert result.exit_code == 0, result.stderr
    assert len(find_inserted_se(senet.load(path, model=__import__("torchvision").models.resnet18(num_classes=3)))) == 2
    alone = invoke("sites", path)
    assert alone.exit_code == 2
    assert "not how to build the network" in alone.stderr
