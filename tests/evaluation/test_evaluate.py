import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import senet
from senet import DataError, evaluate, predict
from senet.data import Preprocessing, open_data, open_loader
from senet.evaluation import evaluate_loader
from tests.images import corrupt_jpeg, picture, write_classes

SIDE = 6
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


class Network(nn.Module):
    """A linear network with dropout before it and a batch norm, so that its mode matters."""

    def __init__(self, classes: int, channels: int = 3, names: list[str] | None = None) -> None:
        super().__init__()
        self.num_classes = classes
        self.pretrained_cfg: dict[str, Any] = {
            "input_size": (channels, SIDE, SIDE),
            "crop_pct": 0.75,
            "interpolation": "bilinear",
            "mean": (0.4, 0.5, 0.6)[:channels],
            "std": (0.2, 0.3, 0.4)[:channels],
            "label_names": names,
        }
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(channels * SIDE * SIDE, classes)
        nn.init.normal_(self.fc.weight, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(x)).flatten(1))


def logits_by_hand(model: Network, image: Image.Image, resize: int = 8, crop: int = SIDE) -> np.ndarray[Any, Any]:
    """By PIL and NumPy in float64."""
    cfg = model.pretrained_cfg
    image = image.convert("RGB" if len(cfg["mean"]) == 3 else "L")
    scale = resize / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    image = image.crop((left, top, left + crop, top + crop))
    pixels = np.asarray(image, dtype=np.float64).reshape(crop, crop, -1) / 255
    x = ((pixels - cfg["mean"]) / cfg["std"] / np.sqrt(1 + model.norm.eps)).transpose(2, 0, 1).ravel()
    weight, bias = (p.detach().double().numpy() for p in (model.fc.weight, model.fc.bias))
    return weight @ x + bias


def by_hand(logits: np.ndarray[Any, Any], labels: list[int]) -> tuple[float, float, float]:
    """Top-1 error, top-5 error and loss."""
    ranks = [int((row > row[label]).sum()) for row, label in zip(logits, labels, strict=True)]
    losses = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)]
    top1, top5 = (float(100 * np.mean([r > k for r in ranks])) for k in (0, 4))
    return top1, top5, float(np.mean(losses))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """31 images of seven classes."""
    return str(write_classes(tmp_path, dict(zip(NAMES, (5, 4, 3, 7, 2, 6, 4), strict=True))))


@pytest.mark.parametrize("batch", [1, 4, 31, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_by_hand(folder: str, batch: int, channels: int) -> None:
    model, data = Network(7, channels), open_data(folder)
    logits = np.stack([logits_by_hand(model, image) for image, _ in data])
    result = evaluate(model, folder, batch=batch)
    top1, top5, loss = by_hand(logits, data.labels.tolist())
    assert (result.top1_error, result.top5_error) == pytest.approx((top1, top5), abs=1e-9)
    assert 0 < top5 < top1 < 100
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert (result.images, result.skipped) == (31, [])
    for index, one in enumerate(result.classes):
        members = data.labels == index
        errors = by_hand(logits[members], data.labels[members].tolist())[:2]
        assert (one.name, one.images) == (NAMES[index], members.sum())
        assert (one.top1_error, one.top5_error) == pytest.approx(errors, abs=1e-9)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_top5_of_few_classes_is_never_wrong(tmp_path: Path, classes: int) -> None:
    folder = write_classes(tmp_path, dict.fromkeys(NAMES[:classes], 4))
    model, data = Network(classes), open_data(str(folder))
    result = evaluate(model, str(folder))
    logits = np.stack([logits_by_hand(model, image) for image, _ in data])
    assert result.top1_error == pytest.approx(by_hand(logits, data.labels.tolist())[0])
    assert result.top5_error == 0
    assert {one.top5_error for one in result.classes} == {0}


def test_classes_are_matched_by_name_in_any_order(folder: str) -> None:
    order = [3, 6, 0, 2, 5, 1, 4]
    model = Network(7)
    expected = evaluate(model, folder)
    model.fc.weight.data, model.fc.bias.data = model.fc.weight.data[order], model.fc.bias.data[order]
    model.pretrained_cfg["label_names"] = [NAMES[index] for index in order]
    result = evaluate(model, folder)
    assert (result.top1_error, result.top5_error) == (expected.top1_error, expected.top5_error)
    assert result.loss == pytest.approx(expected.loss)
    assert [one.name for one in result.classes] == model.pretrained_cfg["label_names"]
    assert sorted(result.classes, key=lambda one: one.name) == expected.classes


def test_data_that_lack_a_class_of_the_network(tmp_path: Path) -> None:
    folder = str(write_classes(tmp_path, {"dog": 2, "bee": 1}))
    result = evaluate(Network(7, names=NAMES), folder)
    assert [(one.name, one.images) for one in result.classes] == [("bee", 1), ("dog", 2)]


def test_options_replace_the_networks_own(folder: str) -> None:
    model = Network(7)
    expected = evaluate(model, folder, resize=13, mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.5])
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
    data = open_data(folder)
    logits = np.stack([logits_by_hand(model, image, 13) for image, _ in data])
    assert expected.loss == pytest.approx(by_hand(logits, data.labels.tolist())[2], rel=1e-5)
    assert evaluate(model, data, crop=SIDE) == evaluate(model, data)


def test_validation_split_is_taken() -> None:
    model = Network(10)
    assert evaluate(model, "digits").images == len(open_data("digits", "val"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")  # as in test_loading
@pytest.mark.parametrize("workers", [0, 2])
def test_reading_anew_gives_the_same(folder: str, workers: int) -> None:
    model, data = Network(7), open_data(folder)
    preprocessing = Preprocessing.of(model.pretrained_cfg)
    loader = open_loader(data, preprocessing, batch=8, workers=workers, memory_limit=0)
    assert evaluate_loader(model, loader) == evaluate(model, data, batch=8)


def test_timm_networks_are_evaluated_as_timm_does(folder: str) -> None:
    model = timm.create_model("resnet10t.c3_in1k", num_classes=7).eval()
    data = open_data(folder).subset(np.array([0, 5, 30]))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        logits = model(torch.stack([transform(image) for image, _ in data])).double()
    result = evaluate(model, data)
    top1, top5, _ = by_hand(logits.numpy(), data.labels.tolist())
    assert (result.top1_error, result.top5_error) == pytest.approx((top1, top5))
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, torch.from_numpy(data.labels))), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_precision(folder: str, dtype: torch.dtype) -> None:
    # Their input was float32, which they refuse.
    model = Network(7)
    expected = evaluate(model, folder)
    assert evaluate(model.to(dtype), folder).loss == pytest.approx(expected.loss, rel=0.05)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("how", ["evaluate", "predict"])
def test_mode_is_as_before(folder: str, training: bool, fails: bool, how: str) -> None:
    model = Network(7).train(training)
    model.norm.eval()  # frozen; it was put into the network's own mode
    seen: list[bool] = []

    def look(module: nn.Module, inputs: object) -> None:
        seen.extend(child.training for child in model.modules())
        if fails:
            raise ZeroDivisionError

    model.fc.register_forward_pre_hook(look)
    before = model.norm.running_mean.clone()
    try:
        evaluate(model, folder) if how == "evaluate" else predict(model, [picture(0)])
    except ZeroDivisionError:
        assert fails
    assert set(seen) == {False}
    assert [module.training for module in model.modules()] == [training, False, training, training]
    assert torch.equal(model.norm.running_mean, before)


def test_evaluation_builds_no_graph(folder: str) -> None:
    outputs: list[Tensor] = []
    model = Network(7)
    model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    evaluate(model, folder)
    predict(model, [picture(0)])
    assert not any(output.requires_grad for output in outputs)


def test_progress_is_tracked(folder: str) -> None:
    reported: list[tuple[int, str, int]] = []

    def progress(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
        steps = list(steps)
        reported.append((total, what, len(steps)))
        yield from steps

    evaluate(Network(7), folder, batch=10, progress=progress)
    predict(Network(7), [picture(seed) for seed in range(5)], batch=2, progress=progress)
    assert reported == [(31, f"decode {folder}", 31), (4, f"evaluate {folder}", 4), (3, "predict", 3)]


def spoil(root: Path, name: str) -> None:
    (root / f"{name}.png").unlink()
    (root / f"{name}.jpg").write_bytes(corrupt_jpeg())


def test_corrupt_image(tmp_path: Path) -> None:
    folder = write_classes(tmp_path, {"a": 3, "b": 3})
    spoil(folder, "a/1")
    with pytest.raises(DataError, match="a/1.jpg: .*leave such images out with --skip-bad"):
        evaluate(Network(2), str(folder))
    result = evaluate(Network(2), str(folder), skip_bad=True)
    assert (result.images, result.skipped) == (5, [str(folder / "a" / "1.jpg")])
    assert [one.images for one in result.classes] == [2, 3]


@pytest.mark.parametrize("readable", [False, True])
def test_batches_that_cannot_be_read(tmp_path: Path, readable: bool) -> None:
    folder = write_classes(tmp_path, {"a": 2})
    for number in range(2 - readable):
        spoil(folder, f"a/{number}")
    preprocessing = Preprocessing.of(Network(1).pretrained_cfg)
    loader = open_loader(open_data(str(folder)), preprocessing, batch=1, skip_bad=True, memory_limit=0)
    if readable:
        assert evaluate_loader(Network(1), loader).images == 1
    else:
        with pytest.raises(DataError, match=f"{folder} has no readable image"):
            evaluate_loader(Network(1), loader)


@pytest.mark.parametrize("classes", [6, 8])
def test_number_of_classes_that_is_not_the_networks(folder: str, classes: int) -> None:
    message = f"has 7 classes, and the network {classes}; to match classes by name, give the network's as label_names"
    with pytest.raises(DataError, match=message):
        evaluate(Network(classes), folder)


def test_class_that_the_network_lacks(folder: str) -> None:
    with pytest.raises(
        DataError, match="has 1 of 7 classes that training lacks: gnu; the 7 known classes are ant, bee"
    ):
        evaluate(Network(7, names=[*NAMES[:6], "hen"]), folder)


def without_cfg(model: Network) -> None:
    del model.pretrained_cfg


def without_classes(model: Network) -> None:
    model.num_classes = 0


def without_number(model: Network) -> None:
    del model.num_classes


def with_other_names(model: Network) -> None:
    model.pretrained_cfg["label_names"] = NAMES[:5]


def with_half_a_cfg(model: Network) -> None:
    del model.pretrained_cfg["crop_pct"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_cfg,
            "Network has no pretrained_cfg, which says how images enter it; build it with senet.create_model",
        ),
        (without_classes, "the network has no classes (num_classes is 0); give it a classifier"),
        (without_number, "the network has no classes (num_classes is None); give it a classifier"),
        # They were an IndexError.
        (with_other_names, "the network has 7 classes and pretrained_cfg has 5 label_names; give as many, or None"),
        (with_half_a_cfg, "pretrained_cfg lacks crop_pct; give it timm's form"),
    ],
)
@pytest.mark.parametrize("how", ["evaluate", "predict"])
def test_network_that_does_not_say_what_it_takes(folder: str, change: Any, message: str, how: str) -> None:
    model = Network(7)
    change(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate(model, folder) if how == "evaluate" else predict(model, [picture(0)])


def test_number_of_classes_from_the_cfg(folder: str) -> None:
    model = Network(7)
    expected = evaluate(model, folder)
    without_number(model)
    model.pretrained_cfg["num_classes"] = 7
    assert evaluate(model, folder) == expected


@pytest.mark.parametrize("batch", [1, 2, 5, 9])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", [None, NAMES])
def test_prediction_by_hand(tmp_path: Path, batch: int, channels: int, names: list[str] | None) -> None:
    model = Network(7, channels, names)
    images = [picture(seed, 9 + seed, 11) for seed in range(5)]
    images[1].save(tmp_path / "1.png")
    paths: list[Any] = [images[0], tmp_path / "1.png", str(tmp_path / "1.png"), images[3], images[4]]
    found = predict(model, iter(paths), top=3, batch=batch)
    assert [one.name for one in found] == ["", str(tmp_path / "1.png"), str(tmp_path / "1.png"), "", ""]
    for one, index in zip(found, (0, 1, 1, 3, 4), strict=True):
        logits = logits_by_hand(model, images[index])
        probabilities = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-probabilities)[:3]
        assert one.classes == [NAMES[i] if names else str(i) for i in best]
        assert one.probabilities == pytest.approx(probabilities[best].tolist(), rel=1e-4)


def test_prediction_of_fewer_classes_than_asked_for() -> None:
    (one,) = predict(Network(2), [picture(0)], top=5)
    assert sorted(one.classes) == ["0", "1"]
    assert sum(one.probabilities) == pytest.approx(1)


def test_prediction_replaces_the_networks_own() -> None:
    model = Network(7)
    options: dict[str, Any] = {"resize": 12, "crop": SIDE, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    (one,) = predict(model, [picture(0, 20, 16)], top=1, **options)
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
    assert one.classes == [str(logits_by_hand(model, picture(0, 20, 16), 12).argmax())]


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "images is empty; give one image or more"),
        ([picture(0)], {"top": 0}, "top must be 1 or more, got 0"),
        ([picture(0)], {"batch": 0}, "batch must be 1 or more, got 0"),
    ],
)
def test_prediction_that_cannot_be(images: list[Image.Image], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(Network(2), images, **options)


@pytest.mark.parametrize("how", ["evaluate", "predict"])
def test_unknown_keywords_are_errors(how: str) -> None:
    options: dict[str, Any] = {"crops": 8}
    with pytest.raises(TypeError, match=rf"{how}: unknown option 'crops'; did you mean 'crop'"):
        evaluate(Network(2), "digits", **options) if how == "evaluate" else predict(Network(2), [picture(0)], **options)


@pytest.mark.parametrize("image", ["cat.jpg", Path("cat.jpg"), picture(0)])
def test_one_image_is_no_list(image: Any) -> None:
    # A name was taken for a list of letters: "cannot open the image c".
    with pytest.raises(TypeError, match=r"images must be a list of files or images, got .*; put it in a list"):
        predict(Network(2), image)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(corrupt_jpeg())
    for path, message in {
        "cut.jpg": "cannot read the image .*cut.jpg: ",
        "none.jpg": "cannot open the image .*none.jpg: No such file or directory",
        ".": "cannot open the image .*: Is a directory",
    }.items():
        with pytest.raises(DataError, match=message):
            predict(Network(2), [picture(0), tmp_path / path])


@pytest.mark.parametrize("saved", [False, True])
def test_named_network(tmp_path: Path, saved: bool) -> None:
    model = senet.create_model("resnet20", num_classes=10)
    data = open_data("digits").subset(np.arange(9))
    expected = evaluate(model, data)
    if saved:
        senet.save(model, tmp_path / "model.safetensors")
        model = senet.load(tmp_path / "model.safetensors")
    assert evaluate(model, data) == expected
    found = predict(model, [image for image, _ in data], top=1)
    wrong = [int(one.classes[0]) != label for one, label in zip(found, data.labels, strict=True)]
    assert 100 * np.mean(wrong) == pytest.approx(expected.top1_error)


def spoil_weight(model: nn.Module, value: float) -> None:
    model.get_parameter("fc.bias").data[1] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("data", ["folder", "from workers"])
def test_logits_that_are_not_finite_are_not_scored(folder: str, value: float, data: str) -> None:
    # NaN was scored as class 0, and a logit of -inf as any other.
    model = Network(7)
    spoil_weight(model, value)
    images = open_data(folder)
    memory = 0 if data == "from workers" else 2**20
    loader = open_loader(images, Preprocessing.of(model.pretrained_cfg), batch=4, memory_limit=memory)
    message = f"the logits of {re.escape(images.name(0))} .batch 1. are not finite .{value}.: .*'fc.bias' holds {value}"
    with pytest.raises(senet.SenetError, match=message):
        evaluate_loader(model, loader)
    with pytest.raises(senet.SenetError, match=message.replace(r" .batch 1.", "")):
        predict(model, [images.name(0)])
    with pytest.raises(senet.SenetError, match="the logits of image 4 of 5 are not finite"):
        predict(PoisonedAt(3), [picture(seed) for seed in range(5)], batch=2)


class PoisonedAt(Network):
    """NaN for the n-th image that it sees."""

    def __init__(self, place: int) -> None:
        super().__init__(3)
        self.place, self.seen = place, 0

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x).clone()
        here = self.place - self.seen
        self.seen += len(x)
        if 0 <= here < len(x):
            logits[here, 2] = float("nan")
        return logits


@pytest.mark.parametrize("memory", [0, 2**20])
def test_first_image_whose_logits_are_not_finite_is_named(tmp_path: Path, memory: int) -> None:
    root = write_classes(tmp_path, {"a": 4, "b": 4, "c": 4})
    spoil(root, "a/1")
    images = open_data(str(root))
    names = [images.name(index) for index in range(len(images)) if not images.name(index).endswith("1.jpg")]
    for place in (0, 1, 5, len(names) - 1):
        model = PoisonedAt(place)
        preprocessing = Preprocessing.of(model.pretrained_cfg)
        loader = open_loader(images, preprocessing, batch=3, skip_bad=True, memory_limit=memory)
        with pytest.raises(senet.SenetError, match=f"the logits of {re.escape(names[place])} .*all weights are finite"):
            evaluate_loader(model, loader)


def test_large_logits_have_a_finite_loss(folder: str) -> None:
    # In float32 the loss was infinite.
    model = Network(7)
    model.fc.weight.data.zero_()
    model.fc.bias.data = torch.tensor([3e38, -3e38, 0, 0, 0, 0, 0])
    result = evaluate(model, folder)
    assert np.isfinite(result.loss)
    labels = torch.tensor(open_data(folder).labels)
    logits = model.fc.bias.detach().double().expand(len(labels), 7)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-12)
    assert result.top1_error == pytest.approx(100 * 26 / 31)  # all but the five of the first class


def test_ties_go_to_the_class_with_the_lower_index(folder: str) -> None:
    # As in argmax; topk picks any of them.
    model = Network(7)
    for parameter in model.fc.parameters():
        parameter.data.zero_()
    result = evaluate(model, folder)
    assert [one.top1_error for one in result.classes] == [0.0] + [100.0] * 6
    assert [one.top5_error for one in result.classes] == [0.0] * 5 + [100.0] * 2
    assert predict(model, [picture(0)], top=7)[0].classes == [str(n) for n in range(7)]


class Wrapped(Network):
    """Gives something else than logits."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__(7)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(super().forward(x))


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda logits: (logits, None), "Wrapped returns a tuple for "),
        (lambda logits: {"logits": logits}, "Wrapped returns a dict for "),
        (lambda logits: logits[..., None], r"Wrapped returns a tensor \(1, 7, 1\) for 1 images, expected logits"),
        (lambda logits: logits[:0], r"Wrapped returns a tensor \(0, 7\) for 1 images"),
    ],
)
def test_outputs_that_are_no_logits(folder: str, wrap: Callable[[Tensor], Any], message: str) -> None:
    model = Wrapped(wrap)
    with pytest.raises(ValueError, match=message):
        evaluate(model, folder, batch=1)
    with pytest.raises(ValueError, match=message):
        predict(model, [picture(0)])


def test_fewer_logits_than_classes(folder: str) -> None:
    # It was an IndexError of PyTorch's loss.
    model = Wrapped(lambda logits: logits[:, :3])
    with pytest.raises(DataError, match="the network returns 3 logits, and .* has 7 classes; set num_classes"):
        evaluate(model, folder)
