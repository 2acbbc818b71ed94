from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

import senet
from senet import DataError, evaluate, open_data, predict, record_gates
from senet.data import open_loader
from senet.evaluation import InputOptions, loader_for
from tests.cli.helpers import answer, invoke, refuses
from tests.helpers import randomise
from tests.images import pack, write_classes

NAMES = [str(number) for number in range(1, 13)]
TEXTUAL = sorted(NAMES)  # 1, 10, 11, 12, 2, ...


class Trained(nn.Module):
    """A network that knows each image by its pixels, its classes in the order of torchvision's ImageFolder."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        data = ImageFolder(str(root))
        assert data.classes == TEXTUAL
        self.num_classes = len(NAMES)
        self.pretrained_cfg: dict[str, Any] = {
            "input_size": (3, 8, 8),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "label_names": None,
        }
        loader = open_loader(open_data(str(root)), senet.data.Preprocessing.of(self.pretrained_cfg), batch=100)
        pixels, labels = next(loader.epoch())
        known = loader.preprocessing.normalize(pixels).flatten(1)
        self.register_buffer("known", known / known.norm(dim=1, keepdim=True))
        self.register_buffer("labels", torch.tensor([TEXTUAL.index(loader.data.classes[label]) for label in labels]))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        nearest = (x.flatten(1) @ self.known.T).argmax(1)
        return self.scale * nn.functional.one_hot(self.labels[nearest], self.num_classes).float()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", dict.fromkeys(NAMES, 2))


WARNING = (
    r"no class names, and the classes of .* have two orders: 1, 2, 3, ... .*senet and timm.* 1, 10, 11.*with classes="
)


def test_order_of_torchvisions_folder_is_warned_of(root: Path) -> None:
    # 91.67 % error, without a word.
    model = Trained(root)
    with pytest.warns(UserWarning, match=WARNING):
        assert evaluate(model, str(root)).top1_error == pytest.approx(100 * 11 / 12)
    with pytest.warns(UserWarning, match=WARNING):
        evaluate(model, str(pack(root)))
    with pytest.warns(
        UserWarning, match="have two orders: 1, 10, 11, ... .*ImageFolder.*, which is assumed, and 1, 2, 3"
    ):
        assert evaluate(model, f"torchvision:ImageFolder?root={root}").top1_error == 0


def by_keyword(model: Trained) -> dict[str, Any]:
    return {"classes": TEXTUAL}


def by_config(model: Trained) -> dict[str, Any]:
    model.pretrained_cfg["label_names"] = TEXTUAL
    return {}


@pytest.mark.parametrize("how", [by_keyword, by_config])
@pytest.mark.parametrize("kind", ["folder", "tar", "ImageFolder", "shards"])
def test_names_give_the_order(root: Path, tmp_path: Path, how: Callable[..., Any], kind: str) -> None:
    model = Trained(root)
    options = how(model)
    spec = str(root)
    if kind == "tar":
        spec = str(pack(root))
    elif kind == "ImageFolder":
        spec = f"torchvision:ImageFolder?root={root}"
    elif kind == "shards":
        from senet.data.shards.writing import write_shards

        write_shards(open_data(spec), tmp_path / "shards")
        spec = f"wds:{tmp_path / 'shards'}"
    result = evaluate(model, spec, **options)
    assert result.top1_error == 0
    assert [one.name for one in result.classes] == TEXTUAL
    assert loader_for(model, spec, InputOptions(**options)).data.classes == TEXTUAL
    (found,) = predict(model, [root / "10" / "0.png"], top=1, **options)
    assert found.classes == ["10"]


def test_orders_that_are_the_same_need_no_names(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"ant": 1, "bee": 1, "2": 1})
    model = senet.create_model("resnet20", num_classes=3)
    assert evaluate(model, str(root)).images == 3


def test_gates_are_recorded_in_the_order_of_the_names(root: Path) -> None:
    model = randomise(senet.create_model("se_resnet20", num_classes=12))
    gates = record_gates(model, str(root), classes=TEXTUAL, sample=24)
    assert gates.classes == TEXTUAL
    labels = [TEXTUAL.index(Path(name).parent.name) for name in map(open_data(str(root)).name, gates.sample.indices)]
    assert gates.sample.labels.tolist() == labels


@pytest.mark.parametrize(
    ("names", "own", "error", "message"),
    [
        (NAMES[:5], None, ValueError, "5 class names are given, and the network has 12 classes; give one for each"),
        ("123456789012", None, TypeError, "classes must be a list of names, got '123456789012'; put it in a list"),
        (
            NAMES,
            TEXTUAL,
            ValueError,
            "its class names in another order: its class 1 is '10', and '2' in the names that",
        ),
        (
            [*NAMES[:11], "x"],
            None,
            DataError,
            "1 of 12 classes that training lacks: 12; .*; the data have no images of x$",
        ),
    ],
)
def test_names_that_do_not_fit(root: Path, names: Any, own: Any, error: type[Exception], message: str) -> None:
    model = Trained(root)
    model.pretrained_cfg["label_names"] = own
    with pytest.raises(error, match=message):
        evaluate(model, str(root), classes=names)


def test_names_replace_those_of_the_network(root: Path) -> None:
    # Such as WordNet's numbers, which the folders have, for words, which the weights have.
    model = Trained(root)
    model.pretrained_cfg["label_names"] = [f"word {name}" for name in TEXTUAL]
    assert evaluate(model, str(root), classes=TEXTUAL).top1_error == 0


def test_training_keeps_the_order_of_the_networks_classes(root: Path, tmp_path: Path) -> None:
    model = senet.create_model("resnet20", num_classes=12)
    model.pretrained_cfg["label_names"] = list(TEXTUAL)
    recipe = senet.load_recipe("digits", ["epochs=1", "batch=24", "warmup=0.5", "workers=0"])
    data = open_data(str(root))
    senet.train(model, (data, data), recipe, tmp_path / "run")
    assert senet.load(tmp_path / "run" / "last.safetensors").pretrained_cfg["label_names"] == TEXTUAL


def test_class_file(tmp_path: Path) -> None:
    from senet.data.class_names import ordered, read_class_names

    (tmp_path / "names.txt").write_bytes("\ufeffan\u0303o\r\n b \r\n\r\n".encode())
    assert read_class_names(tmp_path / "names.txt") == ["a\u00f1o", "b"]
    (tmp_path / "names.txt").write_text("a\n\nb\n")
    with pytest.raises(DataError, match="line 2 of .*names.txt is empty; give one class name per line"):
        read_class_names(tmp_path / "names.txt")
    assert ordered(["10", "b", "2", "02", "B"]) == ["02", "2", "10", "B", "b"]


def test_command_line(root: Path, tmp_path: Path) -> None:
    model = randomise(senet.create_model("se_resnet20", num_classes=12)).eval()
    senet.save(model, tmp_path / "m.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(TEXTUAL))
    (tmp_path / "few.txt").write_text("1\n2\n")
    given = ["evaluate", tmp_path / "m.safetensors", "--data", root]
    result = invoke(*given)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: the network has no class names, and the classes of ")
    result = invoke(*given, "--classes", tmp_path / "names.txt")
    assert (result.exit_code, result.stderr) == (0, "")
    expected = evaluate(model, str(root), classes=TEXTUAL)
    assert answer(*given, "--classes", tmp_path / "names.txt")["top1_error"] == expected.top1_error
    refuses("2 class names are given, and the network has 12 classes", *given, "--classes", tmp_path / "few.txt")
    refuses("cannot read the class list .*nowhere: No such file", *given, "--classes", tmp_path / "nowhere")
    (found,) = answer("predict", given[1], root / "10" / "0.png", "--classes", tmp_path / "names.txt", "--top", 1)
    assert found["classes"][0] in NAMES
    for command, option in (("gates", "--class-names"), ("fold", "--classes")):
        more = ["-o", tmp_path / command, option, tmp_path / "few.txt"]
        refuses("2 class names are given", command, given[1], "--data", root, *more)
