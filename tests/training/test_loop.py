import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image

import senet
from senet import DataError, TrainingError
from senet.data import ImageData, open_data
from senet.training import Epoch, Recipe, Silent, load_recipe, loop, train
from tests.images import corrupt_jpeg, write_classes

RECIPE = replace(load_recipe("digits"), epochs=2, warmup=0.5, batch=8, lr=0.05, workers=0)


def data(classes: int = 3, images: int = 8) -> tuple[ImageData, ImageData]:
    """A little of the digits, training and validation."""
    splits = []
    for split in ("train", "val"):
        whole = open_data("digits", split)
        kept = [i for label in range(classes) for i in (whole.labels == label).nonzero()[0][:images]]
        few = whole.subset(torch.tensor(kept).numpy())
        splits.append(few.with_classes([str(n) for n in range(classes)]))
    return splits[0], splits[1]


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """A folder with a training image that cannot be read."""
    for split in ("train", "val"):
        write_classes(tmp_path / "data" / split, {"cat": 6, "dog": 6}, ".jpg")
    (tmp_path / "data" / "train" / "dog" / "3.jpg").write_bytes(corrupt_jpeg())
    return tmp_path / "data"


class Recorder(Silent):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, model: object, recipe: object, training: object, validation: object) -> None:
        self.calls.append(("start",))

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        self.calls.append(("step", epoch, step, steps, images))

    def epoch(self, epoch: Epoch, best: bool) -> None:
        self.calls.append(("epoch", epoch.epoch, best))


def test_a_run_leaves_its_folder(tmp_path: Path) -> None:
    reporter, output = Recorder(), tmp_path / "runs" / "one"
    run = train("se_resnet20", data(), RECIPE, output, reporter=reporter)
    assert sorted(path.name for path in output.iterdir()) == [
        "best.safetensors",
        "curves.png",
        "last.safetensors",
        "metrics.jsonl",
        "recipe.toml",
    ]
    assert load_recipe(output / "recipe.toml") == RECIPE
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert lines == [asdict(epoch) for epoch in run.epochs]
    with Image.open(output / "curves.png") as picture:
        assert min(picture.size) > 300
    assert not run.interrupted
    steps = [("step", epoch, step, 3, 8 * step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert [call for call in reporter.calls if call[0] == "step"] == steps
    assert [call[:2] for call in reporter.calls if call[0] == "epoch"] == [("epoch", 1), ("epoch", 2)]


def test_files_are_of_the_epochs_that_they_say(tmp_path: Path) -> None:
    splits = data()
    run = train("se_resnet20", splits, replace(RECIPE, epochs=4), tmp_path / "run")
    assert run.best is not None
    for name, epoch in (("best", run.best), ("last", run.epochs[-1])):
        model = senet.load(tmp_path / "run" / f"{name}.safetensors")
        scores = senet.evaluate(model, splits[1])
        assert scores.top1_error == epoch.top1_error
        assert scores.loss == pytest.approx(epoch.loss, rel=1e-4)
        assert model.pretrained_cfg["label_names"] == ["0", "1", "2"]
        assert model.pretrained_cfg["mean"] == tuple(RECIPE.mean)
        assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert run.best.top1_error == min(epoch.top1_error for epoch in run.epochs)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return senet.load(folder / "last.safetensors").state_dict()


def test_the_seed_says_everything(tmp_path: Path) -> None:
    recipes = {"a": RECIPE, "b": RECIPE, "other": replace(RECIPE, seed=1)}
    for name, recipe in recipes.items():
        torch.manual_seed(len(name))  # whatever was drawn before
        state = torch.get_rng_state()
        train("se_resnet20", data(), replace(recipe, network={"drop_path_rate": 0.2}), tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)
    a, b, other = (weights(tmp_path / name) for name in recipes)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["conv1.weight"], other["conv1.weight"])


def test_learns_what_can_be_learnt(tmp_path: Path) -> None:
    run = train("resnet20", data(images=24), replace(RECIPE, epochs=10, warmup=2), tmp_path / "run")
    assert run.epochs[-1].train_error < 10 < run.epochs[0].train_error
    assert run.epochs[-1].top1_error < 25


def test_network_given_built_is_trained_in_place(tmp_path: Path) -> None:
    model = senet.insert(senet.create_model("resnet20", num_classes=3), "post")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, data(), RECIPE, tmp_path / "run")
    after = weights(tmp_path / "run")
    assert all(torch.equal(after[key], value) for key, value in model.state_dict().items())
    assert not any(torch.equal(after[key], before[key]) for key in before if key.endswith("weight"))


def test_options_of_the_recipe_build_the_network(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, mean=[0.3], std=[0.3], network={"reduction": 4, "placement": "pre"})
    train("se_resnet20", data(), recipe, tmp_path / "run")
    model = senet.load(tmp_path / "run" / "last.safetensors")
    assert model.layer1[0].conv1.pre.se.hidden_channels == 4
    assert model.in_channels == 1  # as many as the recipe has means


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    output = tmp_path / "run"
    recipe = replace(RECIPE, epochs=3, lr=1e30, schedule="step", warmup=0.0)
    with pytest.raises(
        TrainingError,
        match=r"the loss is (nan|inf) at step 2 of epoch 1, with learning rate 1e\+30: try a "
        r"lower lr.*no epoch was completed",
    ):
        train("resnet20", data(), recipe, output)
    assert [path.name for path in output.iterdir()] == ["recipe.toml"]


def test_a_later_epoch_that_fails_keeps_what_was_saved(tmp_path: Path) -> None:
    class Bomb(Recorder):
        def start(self, model: torch.nn.Module, *args: object) -> None:
            self.model = model

        def epoch(self, epoch: Epoch, best: bool) -> None:
            with torch.no_grad():
                self.model.fc.bias.fill_(float("nan"))

    output = tmp_path / "run"
    with pytest.raises(TrainingError, match="at step 1 of epoch 2.*last.safetensors holds epoch 1"):
        train("resnet20", data(), RECIPE, output, reporter=Bomb())
    assert all(value.isfinite().all() for value in weights(output).values())
    assert (output / "curves.png").exists()


def test_interrupt_ends_with_the_last_epoch_saved(tmp_path: Path) -> None:
    class Impatient(Recorder):
        def step(self, epoch: int, *args: object) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    run = train("resnet20", data(), RECIPE, tmp_path / "run", reporter=Impatient())
    assert run.interrupted
    assert len(run.epochs) == 1
    assert weights(tmp_path / "run")
    assert (tmp_path / "run" / "curves.png").exists()


def test_interrupt_before_an_epoch(tmp_path: Path) -> None:
    class Hasty(Recorder):
        def step(self, *args: object) -> None:
            raise KeyboardInterrupt

    run = train("resnet20", data(), RECIPE, tmp_path / "run", reporter=Hasty())
    assert run.interrupted
    assert run.best is None


@pytest.mark.parametrize("crop", ["pad", "area"])
def test_an_image_that_cannot_be_read(tmp_path: Path, spoiled: Path, crop: str) -> None:
    recipe = replace(RECIPE, epochs=1, batch=4, crop=crop)
    # In memory it is found before the run starts; read by workers, during the run.
    error = DataError if crop == "pad" else TrainingError
    with pytest.raises(error, match=r"train/dog/3.jpg.*--skip-bad"):
        train("resnet20", str(spoiled), recipe, tmp_path / "run")
    run = train("resnet20", str(spoiled), recipe, tmp_path / f"skip-{crop}", skip_bad=True)
    assert [Path(name).name for name in run.skipped] == ["3.jpg"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.model_file, "save", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        train("resnet20", data(), RECIPE, tmp_path / "run")


def test_refuses_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    output = tmp_path / "run"
    splits = data()

    def refuses(message: str, network: Any = "resnet20", recipe: Any = RECIPE, to: Path = output) -> None:
        with pytest.raises(ValueError, match=message):
            train(network, splits, recipe, to)

    refuses("the output .*used is in use; choose another folder, or remove it", to=tmp_path / "used")
    refuses("the output .*file is in use", to=tmp_path / "used" / "file")
    refuses("unknown network 'resnet21'", "resnet21")
    refuses("unknown recipe 'digit'; did you mean 'digits'", recipe="digit")
    refuses(
        "digits has 3 classes and the network 10; leave num_classes out",
        recipe=replace(RECIPE, network={"num_classes": 10}),
    )
    refuses("takes 1 channels, and the recipe's mean has 3 values", recipe=replace(RECIPE, network={"in_channels": 1}))
    refuses(
        "options .'reduction'. build a network by name",
        senet.create_model("resnet20", num_classes=3),
        replace(RECIPE, network={"reduction": 4}),
    )
    refuses("a FeatureListNet cannot be trained here", senet.create_model("resnet20", features_only=True))
    changed = senet.create_model("resnet20", num_classes=3)
    changed.layer1[0].conv1 = torch.nn.Conv2d(16, 16, 5, padding=2)
    refuses("changed in a way that a file cannot tell", changed)
    refuses("crop_pct must be between 0.05 and 20", recipe=replace(RECIPE, resize=1000, crop_size=32))
    refuses("a ResNet cannot be trained here.*", torchvision.models.resnet18(num_classes=3))
    assert not output.exists()


def test_recipe_by_name_and_data_by_spec(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"cat": 10, "dog": 10})
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 1\nbatch = 4\nlr = 0.01\nresize = 32\ncrop_size = 32\n")
    run = train("resnet20", str(tmp_path / "data"), path, tmp_path / "run", val_fraction=0.2)
    assert len(run.epochs) == 1
    with pytest.raises(DataError, match="has no validation split; give --val-data SPEC or --val-fraction"):
        train("resnet20", str(tmp_path / "data"), path, tmp_path / "other")


def test_label_smoothing_is_in_the_loss(tmp_path: Path) -> None:
    losses = {}
    for smoothing in (0.0, 0.3):
        recipe: Recipe = replace(RECIPE, epochs=1, lr=0.0, schedule="step", warmup=0.0, label_smoothing=smoothing)
        losses[smoothing] = train("resnet20", data(), recipe, tmp_path / str(smoothing)).epochs[0].train_loss
    assert losses[0.0] != losses[0.3]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The last step of an epoch can spoil them, after a training loss that was finite."""
    recipe = replace(RECIPE, lr=1e30, batch=24, schedule="step", warmup=0.0)
    with pytest.raises(TrainingError, match="the validation loss is nan after epoch 1.*no epoch was completed"):
        train("resnet20", data(), recipe, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.toml"]


def test_network_that_cannot_be_trained(tmp_path: Path) -> None:
    for spoil in (torch.nn.Module.double, lambda model: model.requires_grad_(False)):
        model = spoil(senet.create_model("resnet20", num_classes=3))
        with pytest.raises(ValueError, match=r"no parameter is float32 and requires a gradient; try model.float\(\)"):
            train(model, data(), RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_image_can_be_read_in_the_run(tmp_path: Path, spoiled: Path) -> None:
    for path in (spoiled / "train").rglob("*.jpg"):
        path.write_bytes(corrupt_jpeg())
    with pytest.raises(TrainingError, match=r"data has no readable image"):
        train("resnet20", str(spoiled), replace(RECIPE, crop="area"), tmp_path / "run", skip_bad=True)
