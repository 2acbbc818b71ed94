import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

import senet
from senet.recipes import load_recipe
from senet.runs.folder import RunFolder
from senet.training import find_lr
from tests.cli.helpers import answer, invoke, refuses
from tests.data.coco_sets import content, rewrite, write_coco
from tests.helpers import shallow_resnet20
from tests.images import corrupt_jpeg, pack, picture, write_classes

pytestmark = pytest.mark.usefixtures("quick_curves")

# A run of a second: the digits' recipe, cut down.
SHORT = [
    *("--recipe", "digits", "--set", "epochs=2", "--set", "warmup=1", "--set", "batch=4"),
    *("--set", "lr=0.01", "--set", "workers=0"),
]


def test_a_run(tmp_path: Path, data: Path) -> None:
    output = tmp_path / "runs[a]" / ":dog:"  # neither markup nor an emoji
    result = invoke("train", "se_resnet20", "--data", data, "-o", output, *SHORT, "--set", "network.reduction=4")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["top1_error"])
    assert result.stdout.splitlines() == [
        f"top-1 error {best['top1_error']:.2f} % after epoch {best['epoch']}: {output}/best.safetensors",
        f"curves: {output}/curves.png",
    ]
    first, heading, *epochs = result.stderr.splitlines()
    model = senet.load(output / "best.safetensors")
    parameters = sum(p.numel() for p in model.parameters())
    assert first == f"{parameters:,} parameters; 12 training and 4 validation images of 2 classes, 32x32; cpu, fp32"
    assert heading.split()[:2] == ["epoch", "lr"]
    assert [line.split()[0] for line in epochs] == ["1", "2"]
    assert epochs[best["epoch"] - 1].endswith("  best")
    assert model.layer1[0].bn2.se.hidden_channels == 4
    assert model.pretrained_cfg["label_names"] == ["cat", "dog"]
    recipe = load_recipe(output / "recipe.toml")
    assert (recipe.epochs, recipe.lr, recipe.network) == (2, 0.01, {"reduction": 4})


def test_a_folder_in_use_has_an_exit_status_of_its_own(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which a study recognizes it."""
    monkeypatch.setattr("senet.runs.folder._PATIENCE", 0.2)
    output = tmp_path / "run"
    message = f"another run is writing to {re.escape(str(output))}: wait for it, or choose another folder"
    with RunFolder(output).locked():
        refuses(message, "train", "resnet20", "--data", data, "-o", output, *SHORT, status=75)


@pytest.mark.parametrize("kind", ["fraction", "val-data"])
def test_validation_data_of_another_place(tmp_path: Path, data: Path, kind: str) -> None:
    where = ["--val-fraction", 0.5] if kind == "fraction" else ["--val-data", pack(data / "val")]
    arguments = ["train", "resnet20", "--data", pack(data / "train"), *where, "-o", tmp_path / "run", *SHORT]
    done = answer(*arguments, "--set", "epochs=1", "--set", "warmup=0.5")
    assert done["output"] == str(tmp_path / "run")
    assert (done["epochs"], done["best"]["epoch"]) == (1, 1)
    assert done["best"]["top1_error"] in {25.0 * wrong if kind != "fraction" else 100 * wrong / 6 for wrong in range(7)}


def test_a_recipe_of_ones_own(tmp_path: Path, data: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 1\nbatch = 4\nlr = 0.01\nresize = 32\ncrop_size = 32\nworkers = 0\n")
    result = invoke("train", "resnet20", "--data", data, "-o", tmp_path / "run", "--recipe", tmp_path / "mine.toml")
    assert result.exit_code == 0, result.stderr


@pytest.fixture
def corrupt(data: Path) -> Path:
    (data / "train" / "dog" / "3.jpg").write_bytes(corrupt_jpeg())
    return data


def test_leaves_out_bad_images_and_counts_them(tmp_path: Path, corrupt: Path) -> None:
    result = invoke("train", "resnet20", "--data", corrupt, "-o", tmp_path / "run", *SHORT, "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert "12 training and 4 validation images" in result.stderr
    assert f"skipped 1 unreadable images: {corrupt}/train/dog/3.jpg\n" in result.stderr


def test_a_corrupt_image_is_named(tmp_path: Path, corrupt: Path) -> None:
    run = ["train", "resnet20", "--data", corrupt, *SHORT, "-o"]
    refuses(r"train/dog/3\.jpg.*--skip-bad", *run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Cropped by area, images are read during the run.
    refuses(
        r"train/dog/3\.jpg.*--skip-bad", *run, tmp_path / "area", "--set", "crop=area", "--set", "memory=0", status=1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet21"], "unknown network 'resnet21'; did you mean"),
        (["resnet20", "--recipe", "cifa"], "unknown recipe 'cifa'; did you mean 'cifar'"),
        (["resnet20", "--recipe", "nowhere.toml"], "no recipe file at nowhere.toml"),
        (["resnet20", "--set", "epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        (["resnet20", "--set", "learning_rate=1"], "did you mean 'lr'\\? `senet train --recipe NAME --show` lists all"),
        (["resnet20", "--set", "epochs"], "invalid --set 'epochs': expected KEY=VALUE"),
        (["resnet20", "--set", "lr=nan"], "lr must be 0 or more, and finite, got nan"),
        (["resnet20", "--set", f"seed={2**63}"], f"seed must be below 2\\*\\*63, got {2**63}"),
        (["resnet20", "--set", "network=3"], "network must be a table, got 3"),
        (["resnet20", "--set", "network.reduction=4"], "reduction= is an option of SE, but 'resnet20' is plain"),
        (["se_resnet20", "--set", "network.reduction=0"], "reduction must be .*, got 0"),
        (["resnet20", "--set", "network.num_classes=1"], "has 2 classes and the network 1; leave num_classes out"),
        (["resnet20", "--set", "network.weights=nowhere.pth"], "no file at nowhere.pth"),
        (["resnet20", "--val-fraction", "1.5"], "fraction for validation must be between 0 and 1, got 1.5"),
        (["resnet20", "--val-data", "x", "--val-fraction", "0.5"], "not both"),
        (["resnet20", "--val-data", "nowhere"], "the data 'nowhere' does not exist"),
    ],
)
def test_refuses(tmp_path: Path, data: Path, arguments: list[str], message: str) -> None:
    output = tmp_path / "run"
    refuses(message, "train", arguments[0], "--data", data, "-o", output, *SHORT, *arguments[1:])
    assert not output.exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: root.rename(root.with_name("gone")), "data' does not exist; give digits, a folder"),
        (lambda root: [f.unlink() for f in root.rglob("*.png")], "found no images .* in class folders of .*train"),
        (lambda root: (root / "train" / "owl").mkdir(), "the class 'owl' of .*train has no readable image"),
        (
            lambda root: write_classes(root / "val", {"eel": 1}),
            "has 1 of 3 classes that training lacks: eel; the 2 known classes are cat, dog",
        ),
        (lambda root: picture(0).save(root / "train" / "stray.png"), "stray.png is in no class folder"),
        (lambda root: (root / "val").rename(root / "test"), "has train/ but no val/; add it"),
    ],
    ids=["missing", "empty", "class without images", "unknown class", "stray image", "no validation"],
)
def test_refuses_data(tmp_path: Path, data: Path, spoil: Any, message: str) -> None:
    spoil(data)
    refuses(message, "train", "resnet20", "--data", data, "-o", tmp_path / "run", *SHORT)
    assert not (tmp_path / "run").exists()


def test_a_class_of_which_no_image_can_be_read(tmp_path: Path, data: Path) -> None:
    for path in (data / "train" / "dog").iterdir():
        path.write_bytes(b"no image")
    arguments = ["--data", data, "-o", tmp_path / "run", *SHORT, "--skip-bad"]
    refuses("the class 'dog' of .* has no readable image", "train", "resnet20", *arguments)


def test_output_in_use(tmp_path: Path, data: Path) -> None:
    (tmp_path / "notes.txt").touch()
    refuses("is in use: it .* choose another", "train", "resnet20", "--data", data, "-o", tmp_path, *SHORT)


def test_learning_rate_that_diverges(tmp_path: Path, data: Path) -> None:
    output = tmp_path / "run"
    arguments = ["--data", data, "-o", output, *SHORT, "--set", "schedule=step", "--set", "warmup=0"]
    refuses(
        r"the loss is nan at step 2 of epoch 1, with learning rate 1e\+30: try a lower lr.*no epoch was completed",
        *("train", "resnet20", *arguments, "--set", "lr=1e30"),
        status=1,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_and_resume(tmp_path: Path, data: Path, number: signal.Signals) -> None:
    """As a user or a scheduler would: another process, and a signal; then the same command again."""
    output = tmp_path / "run"
    # A shell that runs the tests in the background may have had SIGINT ignored. Curves take longer than all the steps.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import senet.runs.publishing as runs; runs.draw_curves = lambda epochs, path, title, panels: path.touch(); "
        "runpy.run_module('senet', run_name='__main__', alter_sys=True)"
    )
    options = ["--data", str(data), "-o", str(output), *SHORT, "--set", "epochs=5000", "--set", "batch=1", "--json"]
    options += ["--resume"]
    command = [sys.executable, "-W", "error", "-c", program, "train", "resnet20", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    before = 0
    for _ in range(2):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stderr is not None
            seen: list[str] = []
            for line in process.stderr:
                seen.append(line)
                if line.split()[:1] == [str(before + 1)]:
                    process.send_signal(number)
                    break
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 128 + number, "".join(seen) + stderr
        assert "Traceback" not in stderr
        epochs = len((output / "metrics.jsonl").read_text().splitlines())
        assert json.loads(stdout)["epochs"] == epochs > before
        words = rf"interrupted after {epochs} epochs?( and \d+ steps?)?, which are saved; --resume continues from there"
        assert re.match(words, stderr.splitlines()[-1])
        before = epochs
    assert any(line.startswith("resuming after ") for line in seen)
    assert senet.load(output / "last.safetensors").num_classes == 2


def test_a_run_that_is_complete(tmp_path: Path, data: Path) -> None:
    command = ["train", "resnet20", "--data", data, "-o", tmp_path / "run", *SHORT]
    first = invoke(*command)
    refuses("is in use: add --resume to resume its run, or choose another folder", *command)
    again = invoke(*command, "--resume")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert again.stderr == "this run is complete, with 2 epochs\n"
    refuses("cannot resume a changed run: recipe.lr was 0.01 and is 0.02", *command, "--resume", "--set", "lr=0.02")


def test_show(tmp_path: Path) -> None:
    shown = invoke("train", "--recipe", "senet154", "--show", "--set", "epochs=3", "--set", "freeze_bn_epochs=5")
    assert shown.exit_code == 2  # five epochs with frozen batch norms
    shown = invoke("train", "--recipe", "senet154", "--show", "--set", "epochs=30")
    assert shown.stdout.startswith("# SENet-154 (arXiv 1709.01507")
    (tmp_path / "mine.toml").write_text(shown.stdout)
    assert load_recipe(tmp_path / "mine.toml") == load_recipe("senet154", ["epochs=30"])
    refuses("--recipe NAME is missing", "train", "--show")


def test_show_has_every_option_that_a_run_would_have() -> None:
    options = ("--recipe", "digits", "--set", "epochs=2", "--weights", "timm:x", "--missing", "gates")
    shown = invoke("train", "se_resnet20", *options, "--show")
    assert shown.exit_code == 0, shown.output
    for line in ("# --set epochs=2", "# epochs=2 of 12: warmup is shortened in proportion, 3 -> 0.5", "epochs = 2"):
        assert line in shown.stdout.splitlines()
    assert tomllib.loads(shown.stdout)["network"] == {"missing": "gates", "weights": "timm:x"}
    assert answer("train", *options, "--show")["warmup"] == 0.5
    for setting, named in (("network.reduktion=4", "reduktion"), ("network.gate=none", "none"), ("epoch=3", "epoch")):
        refuses(named, "train", "se_resnet20", *options, "--show", "--set", setting)


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 4), (1, 1)])
def test_one_image_at_a_time_on_maps_of_one_value_is_refused_before_the_data_are_read(
    tmp_path: Path, data: Path, batch: int, accumulate: int
) -> None:
    settings = ("--set", f"batch={batch}", "--set", f"accumulate={accumulate}")
    refuses(
        rf"batch={batch} in accumulate={accumulate} parts is 1 image at a time, .* map of 1x1.* larger batch",
        *("train", "resnet18", "--data", data, "-o", tmp_path / "run", *SHORT, *settings),
    )
    assert not (tmp_path / "run").exists()
    done = invoke("train", "resnet20", "--data", data, "-o", tmp_path / "run", *SHORT, *settings)
    assert done.exit_code == 0, done.stderr  # whose maps of 8x8 have values enough


def test_images_that_are_too_small_are_refused(tmp_path: Path, data: Path) -> None:
    settings = ("--set", "crop_size=8", "--set", "resize=8")
    message = r"the network does not accept images of 8x8: .*; set crop_size"
    refuses(message, "train", "vgg16", "--data", data, "-o", tmp_path / "run", *SHORT, *settings)


def test_check(data: Path, tmp_path: Path) -> None:
    done = invoke("train", "--data", data, "--check")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"cat +6", done.stdout)
    assert re.search(r"total +12", done.stdout)
    assert "10 to 10 pixels wide and 8 to 8 high" in done.stdout
    (data / "train" / "dog" / "3.png").write_bytes(b"no image")
    done = invoke("train", "--data", data, "--check")
    assert done.exit_code == 1
    assert re.search(rf"bad: .*{data}/train/dog/3.png: ", done.stdout)
    report = json.loads(invoke("train", "--data", data, "--check", "--json").stdout)
    assert [image["name"] for image in report["training"]["bad"]] == [f"{data}/train/dog/3.png"]
    assert report["validation"]["bad"] == []


def test_check_of_boxes(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    done = invoke("train", "--data", f"coco:{root}", "--check")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"class +images +bad +boxes\ncat +5 +5\n", done.stdout)
    assert re.search(r"total +5 +0 +10\n", done.stdout)
    whole = content(5)
    whole["annotations"][2]["bbox"] = [1, 2, 3, -4]
    rewrite(root, whole)
    done = invoke("train", "--data", f"coco:{root}", "--check")
    assert done.exit_code == 1
    assert f"fault: annotation 102 ({root}/train/1.png): its box [1.0, 2.0, 3.0, -4.0] has no size" in done.stdout
    report = json.loads(invoke("train", "--data", f"coco:{root}", "--check", "--json").stdout)
    assert [fault["id"] for fault in report["training"]["faults"]] == [102]
    arguments = ("train", "se_resnet20", "--data", f"coco:{root}", "--task", "multilabel", "-o", tmp_path / "run")
    refuses("has 1 fault in its annotations: annotation 102 .*--skip-bad", *arguments, *SHORT)
    rewrite(root, "[")
    refuses(r"train\.json: it is not JSON", "train", "--data", f"coco:{root}", "--check")


def test_profile_and_tensorboard(tmp_path: Path, data: Path) -> None:
    arguments = [
        "train",
        "resnet20",
        "--data",
        data,
        "-o",
        tmp_path / "run",
        *SHORT,
        "--profile",
        "--log",
        "tensorboard",
    ]
    done = invoke(*arguments)
    assert done.exit_code == 0, done.stderr
    for work in ("data", "forward", "backward", "optimizer", "evaluation", "checkpoint"):
        assert re.search(rf"^{work} +\d+\.\d +\d+\.\d %", done.stdout, re.M)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits", "-o", "run", "--recipe", "digits"], "NETWORK is missing; see `senet train --help`"),
        (["resnet20", "-o", "run", "--recipe", "digits"], "--data SPEC is missing"),
        (["resnet20", "--data", "digits", "--recipe", "digits"], "--output DIR is missing"),
        (["resnet20", "--data", "digits", "-o", "run"], "--recipe NAME is missing"),
    ],
)
def test_what_is_missing(arguments: list[str], message: str) -> None:
    refuses(message, "train", *arguments)


@pytest.mark.usefixtures("terminal")
def test_a_bar_on_a_terminal(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawn at every change, rather than ten times a second.
    monkeypatch.setattr(Progress, "update", partialmethod(Progress.update, refresh=True))
    result = invoke("train", "resnet20", "--data", data, "-o", tmp_path / "run", *SHORT)
    assert result.exit_code == 0, result.stderr
    bars = [line for line in re.split(r"[\r\n]", result.stderr) if "left" in line]
    assert "first step" in bars[0]  # and no numbers that nothing stands behind
    step = r"epoch ([12])/2 .* \d+ images/s  loss \d+\.\d{3}  error +\d+\.\d % .*:\S* left"
    steps = [found[1] for found in (re.search(step, bar) for bar in bars) if found]
    assert list(dict.fromkeys(steps)) == ["1", "2"]
    assert len(steps) >= 6  # of each epoch three
    assert any("evaluating" in bar for bar in bars)
    assert re.findall(r"\x1b\[2K +(\d) +0\.0\d\d ", result.stderr) == ["1", "2"]  # lines that stay, over the bar
    assert result.stdout.startswith("top-1 error")


def test_finding_a_learning_rate(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senet.training, "find_lr", partial(find_lr, steps=20))
    plot = tmp_path / "lr.png"
    given = ("train", "se_resnet20", "--data", data, *SHORT, "--find-lr", plot)
    with shallow_resnet20():
        found = answer(*given)
    assert plot.is_file()
    assert [path.name for path in tmp_path.iterdir() if path != data] == ["lr.png"]
    assert found["recipe_lr"] == 0.01
    assert found["steps"][0]["lr"] == pytest.approx(1e-6)
    assert found["suggestion"] is None or 1e-6 <= found["suggestion"] <= found["lowest"]
    refuses("--output is for a run, and --find-lr only plots losses; leave it out", *given, "-o", tmp_path / "run")
    refuses("invalid --find-lr 'lr.jpg': the name must end in .png", *given[:-1], "lr.jpg")
