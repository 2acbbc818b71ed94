import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image

import senet
from senet import DataError, TrainingError
from senet.recipes import load_recipe
from senet.runs import Epoch, Silent, publishing
from senet.training import runner, train
from tests.images import corrupt_jpeg, write_classes
from tests.training.runs import digits

RECIPE = replace(load_recipe("digits"), epochs=2, warmup=0.5, batch=8, lr=0.05, workers=0)


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

    def start(self, model: object, recipe: object, training: object, validation: object, epochs: list[Epoch]) -> None:
        self.calls.append(("start", len(epochs)))

    def step(self, epoch: int, step: int, steps: int, images: int, metrics: Mapping[str, float]) -> None:
        self.calls.append(("step", epoch, step, steps, images))

    def epoch(self, epoch: Epoch, best: bool) -> None:
        self.calls.append(("epoch", epoch.epoch, best))


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden files aside."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.usefixtures("real_curves")
def test_a_run_leaves_its_folder(tmp_path: Path) -> None:
    reporter, output = Recorder(), tmp_path / "runs" / "one"
    run = train("se_resnet20", digits(), RECIPE, output, reporter=reporter)
    assert names(output) == [
        "best.safetensors",
        "checkpoint.pt",
        "curves.png",
        "last.safetensors",
        "metrics.jsonl",
        "recipe.toml",
        "run.json",
    ]
    about = json.loads((output / "run.json").read_text())
    parameters = sum(p.numel() for p in senet.load(output / "last.safetensors").parameters())
    assert (about["network"], about["data"], about["parameters"]) == ("se_resnet20", "digits", parameters)
    assert (about["torch"], about["senet"]) == (torch.__version__, senet.__version__)
    assert load_recipe(output / "recipe.toml") == RECIPE
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert lines == [epoch.as_row() for epoch in run.epochs]
    with Image.open(output / "curves.png") as picture:
        assert min(picture.size) > 300
    assert not run.interrupted
    steps = [("step", epoch, step, 3, 8 * step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert [call for call in reporter.calls if call[0] == "step"] == steps
    assert reporter.calls[0] == ("start", 0)
    reported = [call[1:] for call in reporter.calls if call[0] == "epoch"]
    assert [number for number, _ in reported] == [1, 2]
    assert reported[0] == (1, True)
    assert reported[1] == (2, run.best is run.epochs[1])


def test_files_are_of_the_epochs_that_they_say(tmp_path: Path) -> None:
    splits = digits()
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


@pytest.mark.slow
def test_the_seed_says_everything(tmp_path: Path) -> None:
    recipes = {"a": RECIPE, "b": RECIPE, "other": replace(RECIPE, seed=1)}
    for name, recipe in recipes.items():
        torch.manual_seed(len(name))  # whatever was drawn before
        state = torch.get_rng_state()
        train("se_resnet20", digits(), replace(recipe, network={"drop_path_rate": 0.2}), tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)
    a, b, other = (weights(tmp_path / name) for name in recipes)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["conv1.weight"], other["conv1.weight"])


def test_learns_what_can_be_learnt(tmp_path: Path) -> None:
    run = train("resnet20", digits(images=24), replace(RECIPE, epochs=10, warmup=2), tmp_path / "run")
    assert run.epochs[-1].train_error < 10 < run.epochs[0].train_error
    assert run.epochs[-1].top1_error < 25


def test_network_given_built_is_trained_in_place(tmp_path: Path) -> None:
    model = senet.insert(senet.create_model("resnet20", num_classes=3), "post")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, digits(), RECIPE, tmp_path / "run")
    after = weights(tmp_path / "run")
    assert all(torch.equal(after[key], value) for key, value in model.state_dict().items())
    assert not any(torch.equal(after[key], before[key]) for key in before if key.endswith("weight"))


def test_options_of_the_recipe_build_the_network(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, mean=[0.3], std=[0.3], network={"reduction": 4, "placement": "pre"})
    train("se_resnet20", digits(), recipe, tmp_path / "run")
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
        train("resnet20", digits(), recipe, output)
    assert names(output) == ["recipe.toml", "run.json"]


def test_a_later_epoch_that_fails_keeps_what_was_saved(tmp_path: Path) -> None:
    class Bomb(Recorder):
        def start(self, model: torch.nn.Module, *args: object) -> None:  # type: ignore[override]
            self.model = model

        def epoch(self, epoch: Epoch, best: bool) -> None:
            with torch.no_grad():
                self.model.fc.bias.fill_(float("nan"))

    output = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"at step 1 of epoch 2.*checkpoint.pt holds 1 epoch.*--resume continues"):
        train("resnet20", digits(), RECIPE, output, reporter=Bomb())
    assert all(value.isfinite().all() for value in weights(output).values())
    assert (output / "curves.png").exists()


@pytest.mark.parametrize(
    ("share", "stop_at", "drawn"), [(float("inf"), 0, [1, 2, 3, 4]), (1e-9, 0, [1, 4]), (1e-9, 3, [1, 2])]
)
def test_curves_take_a_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, stop_at: int, drawn: list[int]
) -> None:
    class Stops(Silent):
        def step(self, epoch: int, *rest: object) -> None:
            if epoch == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

    lengths: list[int] = []
    monkeypatch.setattr(publishing, "draw_curves", lambda epochs, *rest: lengths.append(len(epochs)))
    monkeypatch.setattr(runner, "_DRAWING", share)
    train("resnet20", digits(2, 4), replace(RECIPE, epochs=4), tmp_path / "run", reporter=Stops())
    assert lengths == drawn


@pytest.mark.parametrize("crop", ["pad", "area"])
def test_an_image_that_cannot_be_read(tmp_path: Path, spoiled: Path, crop: str) -> None:
    recipe = replace(RECIPE, epochs=1, batch=4, crop=crop, memory=0 if crop == "area" else 4)
    # In memory it is found before the run starts; read by workers, during the run.
    error = DataError if crop == "pad" else TrainingError
    with pytest.raises(error, match=r"train/dog/3.jpg.*--skip-bad"):
        train("resnet20", str(spoiled), recipe, tmp_path / "run")
    run = train("resnet20", str(spoiled), recipe, tmp_path / f"skip-{crop}", skip_bad=True)
    assert [Path(name).name for name in run.skipped] == ["3.jpg"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing.model_file, "save", full)
    with pytest.raises(TrainingError, match=r"No space left on device; .*checkpoint.pt holds 1 epoch"):
        train("resnet20", digits(), RECIPE, tmp_path / "run")


def test_refuses_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    output = tmp_path / "run"
    splits = digits()

    def refuses(message: str, network: Any = "resnet20", recipe: Any = RECIPE, to: Path = output) -> None:
        with pytest.raises(ValueError, match=message):
            train(network, splits, recipe, to)

    refuses("the output .*used is in use.*choose another folder, or remove it", to=tmp_path / "used")
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
    refuses("changed in a way that a file cannot describe", changed)
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


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The last step of an epoch can spoil them, after a training loss that was finite."""
    recipe = replace(RECIPE, lr=1e30, batch=24, schedule="step", warmup=0.0)
    with pytest.raises(TrainingError, match="the validation loss is nan after epoch 1.*no epoch was completed"):
        train("resnet20", digits(), recipe, tmp_path / "run")
    assert names(tmp_path / "run") == ["recipe.toml", "run.json"]


def test_std_by_which_inputs_overflow_is_refused_first(tmp_path: Path) -> None:
    recipe = replace(RECIPE, std=[1e-45] * 3)
    with pytest.raises(ValueError, match=r"std must be 0.001 or more, got \(1e-45, 1e-45, 1e-45\)"):
        train("resnet20", digits(), recipe, tmp_path / "run")


def test_network_that_cannot_be_trained(tmp_path: Path) -> None:
    for spoil in (torch.nn.Module.double, lambda model: model.requires_grad_(False)):
        model = spoil(senet.create_model("resnet20", num_classes=3))
        with pytest.raises(ValueError, match=r"no parameter is float32 and requires a gradient; try model.float\(\)"):
            train(model, digits(), RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_image_can_be_read_in_the_run(tmp_path: Path, spoiled: Path) -> None:
    for path in (spoiled / "train").rglob("*.jpg"):
        path.write_bytes(corrupt_jpeg())
    with pytest.raises(TrainingError, match=r"data has no readable image"):
        train("resnet20", str(spoiled), replace(RECIPE, crop="area", memory=0), tmp_path / "run", skip_bad=True)


def trainable(model: torch.nn.Module) -> list[bool]:
    return [parameter.requires_grad for parameter in model.parameters()]


def test_only_se_changes_when_only_se_is_trained(tmp_path: Path) -> None:
    model = senet.insert(senet.create_model("resnet20", num_classes=3), reduction=4)
    model.conv1.requires_grad_(False)
    before, was = {key: value.clone() for key, value in model.state_dict().items()}, trainable(model)
    train(model, digits(), replace(RECIPE, train_only="se"), tmp_path / "run")
    for after in (model.state_dict(), weights(tmp_path / "run")):
        # Of statistics not even the count of batches.
        assert {key for key, value in after.items() if not torch.equal(value, before[key])} == {
            key for key in before if ".se.fc" in key
        }
    assert trainable(model) == was


def test_what_a_recipe_froze_is_free_after_an_error(tmp_path: Path) -> None:
    class Failing(Silent):
        def step(self, *args: object) -> None:
            raise KeyError("the reporter's own")

    model = senet.create_model("se_resnet20", num_classes=3)
    with pytest.raises(KeyError, match="the reporter's own"):
        train(model, digits(), replace(RECIPE, train_only="se"), tmp_path / "run", reporter=Failing())
    assert all(trainable(model))


def test_no_se_to_train(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="train_only is 'se', and the network has no SE that senet inserted; insert some"
    ):
        train("resnet20", digits(), replace(RECIPE, train_only="se"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_averaged_weights_are_evaluated_and_saved(tmp_path: Path) -> None:
    splits, model = digits(), senet.create_model("resnet20", num_classes=3)
    run = train(model, splits, replace(RECIPE, ema=0.9, epochs=3), tmp_path / "run")
    saved = weights(tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["state"]
    for key, value in saved.items():
        assert torch.equal(value, state["ema"][key])
        assert torch.equal(model.state_dict()[key], state["model"][key])
        assert torch.equal(value, state["model"][key]) == (not value.is_floating_point())
    scores = senet.evaluate(senet.load(tmp_path / "run" / "last.safetensors"), splits[1])
    assert scores.loss == pytest.approx(run.epochs[-1].loss, rel=1e-4)
    assert senet.evaluate(model, splits[1]).loss != pytest.approx(run.epochs[-1].loss, rel=1e-3)


def test_an_average_does_not_change_what_is_averaged(tmp_path: Path) -> None:
    for name, recipe in (("plain", RECIPE), ("averaged", replace(RECIPE, ema=0.9))):
        train("se_resnet20", digits(), recipe, tmp_path / name)
    plain, averaged = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state"]["model"]
        for name in ("plain", "averaged")
    )
    assert all(torch.equal(plain[key], averaged[key]) for key in plain)


@pytest.mark.parametrize("tf32", [False, True])
def test_cudas_rounding_is_the_recipes_for_the_run_alone(tmp_path: Path, tf32: bool) -> None:
    seen: list[tuple[bool, bool]] = []

    def switches() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    class Looking(Silent):
        def step(self, *args: object) -> None:
            seen.append(switches())

    before = switches()
    train("resnet20", digits(), replace(RECIPE, epochs=1, tf32=tf32), tmp_path / "run", reporter=Looking())
    assert set(seen) == {(tf32, tf32)}
    assert switches() == before


def test_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not available to PyTorch: use device=auto"):
        train("resnet20", digits(), replace(RECIPE, device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_steps_that_were_left_out_are_in_the_metrics(tmp_path: Path) -> None:
    class Spoiling(Silent):
        def start(self, model: torch.nn.Module, *args: object) -> None:
            self.steps = 0
            model.fc.weight.register_hook(lambda g: g * float("inf") if self.steps == 1 else g)

        def step(self, *args: object) -> None:
            self.steps += 1

    recipe = replace(RECIPE, on_nonfinite="skip")
    run = train("resnet20", digits(), recipe, tmp_path / "run", reporter=Spoiling())
    assert [epoch.nonfinite_steps for epoch in run.epochs] == [1, 0]
    with pytest.raises(TrainingError, match="the norm of the gradient is .* at step 2 of epoch 1"):
        train("resnet20", digits(), RECIPE, tmp_path / "stop", reporter=Spoiling())


def test_where_the_time_went(tmp_path: Path) -> None:
    run = train("resnet20", digits(), RECIPE, tmp_path / "run", profile=True)
    work = {"data", "forward", "backward", "optimizer", "reporting", "evaluation", "checkpoint"}
    assert set(run.seconds) == work
    assert all(seconds > 0 for seconds in run.seconds.values())


@pytest.mark.parametrize("accumulate", [1, 8])
def test_out_of_memory_says_what_to_do(tmp_path: Path, accumulate: int) -> None:
    class Short(Silent):
        def step(self, epoch: int, *args: object) -> None:
            if epoch == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    recipe = replace(RECIPE, accumulate=accumulate, batch=12, freeze_bn_epochs=2)
    parts, images = {1: (2, 6), 8: (12, 1)}[accumulate]
    with pytest.raises(
        TrainingError,
        match=rf"out of memory with batch=12 and accumulate={accumulate}: accumulate={parts} makes the same steps with "
        rf"less, in parts of {images} images; or give a smaller batch, and base_batch_size=12 "
        r".*checkpoint.pt holds 1 epoch",
    ):
        train("resnet20", digits(), recipe, tmp_path / "run", reporter=Short())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nSome advice"),
            r"a process that reads images died \(DataLoader worker \(pid 7\) is killed by signal: Killed. \): "
            r"memory may be short, try fewer workers or workers=0; no epoch was completed",
        ),
        (MemoryError(), "out of memory with batch=8 and accumulate=1: accumulate=2 makes the same steps"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory with batch=8"),
        (OSError(5, "Input/output error"), "Input/output error; no epoch was completed, and nothing is saved"),
    ],
    ids=["worker", "memory", "allocator", "disk"],
)
def test_errors_of_the_machine_say_what_to_do(tmp_path: Path, error: Exception, message: str) -> None:
    class Failing(Silent):
        def step(self, *args: object) -> None:
            raise error

    with pytest.raises(TrainingError, match=message) as caught:
        train("resnet20", digits(), RECIPE, tmp_path / "run", reporter=Failing())
    assert caught.value.__cause__ is error


def test_other_errors_come_as_they_are(tmp_path: Path) -> None:
    class Wrong(Silent):
        def step(self, *args: object) -> None:
            raise RuntimeError("a fault of its own")

    with pytest.raises(RuntimeError, match="^a fault of its own$"):
        train("resnet20", digits(), RECIPE, tmp_path / "run", reporter=Wrong())


def test_says_what_is_assumed_of_weights_and_which_were_taken(tmp_path: Path) -> None:
    class Notes(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    state = senet.create_model("resnet20", num_classes=3).state_dict()
    torch.save({"model": state, "ema": state}, tmp_path / "model.pth")
    recipe = replace(RECIPE, epochs=1, network={"weights": str(tmp_path / "model.pth"), "entry": "model"})
    train("resnet20", digits(), recipe, tmp_path / "run", reporter=(reporter := Notes()))
    assert any("assumed, because the weights do not say it: " in text for text in reporter.notes)
    assert any("'model' was loaded; entry='ema' (--weights-entry ema) loads ema" in text for text in reporter.notes)
