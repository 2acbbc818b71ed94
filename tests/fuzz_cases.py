"""Command lines that are invalid by construction, and some that are valid, over all commands of `senet`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "command_lines"]


@dataclass(frozen=True)
class Case:
    """A command line.

    Attributes:
        how: what was done to it.
        arguments: of `senet`.
        valid: True: must end with 0. False: must end with 2, before work. None: may be either, or fail with 1.
    """

    how: str
    arguments: tuple[str, ...]
    valid: bool | None = False


def _bases(valid: dict[str, Path], out: Path) -> dict[str, list[list[str]]]:
    """Valid command lines that are fast, by command."""
    model, images, tar, run = (str(valid[name]) for name in ("model", "image", "tar", "run"))
    short, split = ["--recipe", "digits", "--set", "epochs=1"], ["--val-fraction", "0.5"]
    return {
        "models": [["resnet20"], ["se_resnet*"], ["se_resnet20", "--plot", f"{out}/cost.png"]],
        "insert": [["resnet20", "--dry-run"], ["resnet20", "-o", f"{out}/m.safetensors"]],
        "train": [["se_resnet20", "--data", tar, *short, "--show"], ["--data", tar, *split, "--check"]],
        "study": [["reduction", "--data", tar, *split, "--network", "resnet20", "--seeds", "1", *short, "-o", f"{out}/s",
                   "--dry-run", "--arms", "plain"]],
        "compare": [[run, "-o", f"{out}/curves.png"]],
        "evaluate": [[model, "--data", tar, "--workers", "0"]],
        "predict": [[model, images, "--top", "1"], [model, images, "--grid", f"{out}/grid.png"]],
        "gates": [[model, "--data", tar, "-o", f"{out}/gates", "--no-ablation", "--workers", "0"]],
        "fold": [[model, "--data", tar, "--dry-run", "--no-latency", "--workers", "0"]],
        "bench": [["se_resnet20", "--batch", "1", "--rounds", "3", "--seconds", "1", "--threads", "1"]],
        "shard": [[tar, "-o", f"{out}/shards", "--jobs", "1"]],
        "export": [[str(valid["timm"]), "--weights-format", "timm", "-o", f"{out}/weights.pth"]],
        "paper": [["--table", "4"], [run, "--table", "4"]],
    }  # fmt: skip


# Values that an option cannot have. A whole number of 5,000 digits fits nowhere.
_NO_NUMBER = ("x", "", "1,2", "0x10", "one\x1b[31m", "[red]1", "\u0661x")
_NO_WHOLE = (*_NO_NUMBER, "1.5", "nan", "1e3", "9" * 5000)
_BELOW_1 = (*_NO_WHOLE, "0", "-1", "-99999999999999999999")
_NO_FRACTION = (*_NO_NUMBER, "nan", "-0.1", "1.5", "inf")
_NO_COLOURS = ("x", "0.5,,0.5", "1,2", "1,2,3,4,5", "nan,nan,nan", "inf,0,0", "0.1;0.2;0.3")
_NO_FILE = ("none.safetensors", "/none/none.pth", "none\x1b[2J.pth", "/", ".", "\udcff.pth", "x" * 300 + ".pth")
_NO_NAME = ("se_resnet21", "RESNET", "[bold]", "resnet20\n", "../resnet20", "timm/none", "torchvision/none")
_NO_DATA = ("none", "/none", "none.tar", "wds:none", "wds:{0..999999999}.tar", "hf:", "torchvision:None", "digits?x=1", "[red]")  # fmt: skip
_NO_RECIPE = ("none", "none.toml", "/none.toml", ".", "[red]", "digits.toml")
_NO_OUTPUT = (" ", "x" * 300, "/dev/null/x", "--json")
_NO_SET = (
    "network.bogus=1",
    "=1",
    "x",
    "network.reduction=-1",
    "network.gate=none",
    "network=3",
    "network.reduction=0",
)
_NO_KEY = (
    *("epochs=0", "epochs=x", "epochs=1.5", "batch=0", "lr=nan", "lr=-1", "lr=inf", "warmup=inf", "seed=-1", "epoch=3"),
    *("schedule=none", "momentum=1", "milestones=[-1]", "mean=[]", "std=[0,0,0]", "crop_size=0", "resize=-5", "=", "x"),
    *("crop_size=99999999", "network.bogus=1", "network.gate=none", "seed=99999999999999999999", "precision=fp8"),
    *("accumulate=99999", "optimizer=none", "ema=1", "interpolation=none", "flip=2", "a.b=1", "network.=1", "lr=[1"),
)  # fmt: skip

# By command: options, and values that each cannot have.
_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "models": {"--set": _NO_SET, "--plot": ("x.jpg", *_NO_OUTPUT)},
    "insert": {
        "--placement": ("none", "", "standard "), "--reduction": ("0", "-1", "nan", *_NO_NUMBER), "--set": _NO_SET,
        "--squeeze": ("none2", ""), "--gate": ("softmax", ""), "--attention": ("cbam", ""), "--stages": ("x", "99", "", "2,,3"), "--init": ("", "x"),
        "--at": ("none.*", ""), "--weights": _NO_FILE, "-o": ("x.jpg", "x.pth", *_NO_OUTPUT), "--network": ("resnet20",),
    },
    "train": {"--set": _NO_KEY, "--recipe": _NO_RECIPE},
    "study": {
        "--set": ("epochs=0", "seed=1", "x", "epoch=1"), "--recipe": _NO_RECIPE, "--seeds": (*_BELOW_1, "99999999"),
        "--network": _NO_NAME, "--arms": ("none", ""), "--jobs": _BELOW_1, "--data": _NO_DATA, "--cpus": ("2", "x"),
        "--baseline": ("plain",), "--val-fraction": _NO_FRACTION, "-o": _NO_OUTPUT, "--gpus": ("1", "nan"),
    },
    "compare": {"--by": ("none", ""), "-o": ("x.jpg", *_NO_OUTPUT)},
    "evaluate": {
        "--data": _NO_DATA, "--resize": _BELOW_1, "--crop": (*_BELOW_1, "99999999"), "--mean": _NO_COLOURS,
        "--std": (*_NO_COLOURS, "0,0,0", "1e-45,1e-45,1e-45"), "--batch": _BELOW_1, "--workers": (*_NO_WHOLE, "-1"),
        "--network": ("resnet20",), "--set": ("network.reduction=8",),
    },
    "predict": {
        "--top": _BELOW_1, "--grid": ("x.jpg", *_NO_OUTPUT), "--crop": _BELOW_1, "--mean": _NO_COLOURS,
        "--std": ("0,0,0", *_NO_COLOURS), "--resize": _BELOW_1, "--network": ("resnet20",),
    },
    "gates": {
        "--by": ("none", ""), "--confidence": ("0", "1", "2", *_NO_NUMBER), "--threshold": ("x", "none=1", "specific=x"),
        "--classes": ("none", ""), "--channels": _BELOW_1, "--sample": (*_NO_WHOLE, "-1"), "--seed": (*_NO_WHOLE, "-1"),
        "--data": _NO_DATA, "-o": _NO_OUTPUT, "--batch": _BELOW_1,
    },
    "fold": {
        "--max-drop": ("nan", "-1", *_NO_NUMBER), "--confidence": ("0", "1", "nan", *_NO_NUMBER), "--gates": _NO_FILE,
        "--blocks": ("none", "none.*"), "--data": _NO_DATA, "--batch": _BELOW_1, "-o": ("x.png", *_NO_OUTPUT),
    },
    "bench": {
        "--against": ("none", *_NO_FILE[:2]), "--mode": ("none", ""), "--batch": _BELOW_1, "--size": _BELOW_1,
        "--dtype": ("float8", ""), "--threads": _BELOW_1, "--device": ("tpu", "cuda:99x"), "--rounds": _BELOW_1,
        "--seconds": ("0", "-1", "nan", "inf", *_NO_NUMBER), "--set": _NO_SET,
    },
    "shard": {
        "--split": ("none", ""), "--images-per-shard": _BELOW_1, "--megabytes": ("0", "-1", "nan", *_NO_NUMBER),
        "--jobs": _BELOW_1, "-o": _NO_OUTPUT,
    },
    "export": {"--weights-format": ("keras", ""), "-o": ("x.txt", *_NO_OUTPUT), "--network": ("resnet20",)},
    "paper": {"--table": ("99", "x", ""), "--write": ("x.html", "x.md")},
}  # fmt: skip

_FIRST = {
    "models": _NO_NAME[:4], "insert": (*_NO_NAME, *_NO_FILE[:3]), "train": _NO_NAME, "compare": _NO_FILE[:4],
    "study": ("none", "none.toml", "[red]"), "evaluate": _NO_FILE, "predict": _NO_FILE, "gates": _NO_FILE,
    "fold": _NO_FILE, "bench": (*_NO_NAME, *_NO_FILE[:3]), "shard": _NO_DATA, "export": _NO_FILE, "paper": _NO_FILE[:2],
}  # fmt: skip


def _contradictions(valid: dict[str, Path], out: Path) -> Iterator[list[str]]:
    """Options that exclude each other, or that would do nothing."""
    model, tar, run = (str(valid[name]) for name in ("model", "tar", "run"))
    yield from (
        ["models", "--paper", "resnet20"], ["models", "se_*", "--plot", f"{out}/x.png"], ["models", "*", "--set", "a=1"],
        ["insert", "resnet20"], ["insert", model, "--network", "resnet20", "--dry-run"],
        ["insert", model, "--dry-run"], ["insert", "se_resnet20", "--dry-run"],
        ["train"], ["train", "resnet20"], ["train", "--show"], ["train", "--check"],
        ["train", "resnet20", "--data", tar, "--recipe", "digits", "-o", ""],
        ["train", "resnet20", "--data", tar, "--recipe", "digits", "-o", tar],
        ["train", "resnet20", "--data", tar, "--recipe", "digits", "-o", run],
        ["train", "resnet20", "--data", tar, "--recipe", "digits", "-o", f"{out}/n", "--missing", "gates"],
        ["study", "report"], ["study", "report", run], ["study", "report", run, "--dry-run"],
        ["study", "reduction", "x", "--data", tar], ["study", "reduction"],
        ["compare", run], ["compare", "-o", f"{out}/x.png"], ["evaluate", model], ["evaluate", "--data", tar],
        ["predict", model], ["predict", str(valid["image"])], ["gates", model, "--data", tar],
        ["gates", str(valid["plain"]), "--data", tar, "-o", f"{out}/plain"],
        ["fold", model, "--data", tar], ["fold", model, "--data", tar, "-o", model],
        ["fold", str(valid["plain"]), "--data", tar, "--dry-run"],
        ["bench", model, "--set", "network.reduction=8"], ["bench"], ["bench", "resnet20"],
        ["shard", tar], ["shard", tar, "--verify"], ["shard", "wds:none", "--verify", "-o", f"{out}/v"],
        ["shard", tar, "-o", f"{out}/b", "--images-per-shard", "2", "--megabytes", "1"],
        ["export", model, "-o", f"{out}/x.pth"], ["export", model, "--weights-format", "timm"],
        ["paper", "--write", f"{out}/x.md", "--json"], ["paper", "--write", f"{out}/x.md", "--table", "2"],
        ["none"], [], ["--none"], ["train", "--help2"], ["models", "resnet20", "resnet20"],
    )  # fmt: skip


def command_lines(valid: dict[str, Path], out: Path, seed: int = 0, count: int = 400) -> list[Case]:
    """Return command lines in an order and a choice of a seed; valid ones and contradictions are always among them.

    Args:
        valid: of `tests.hostile_files.valid_files`, with "plain", a model file without SE, and "timm", one that timm
            has.
        out: a folder for outputs.
        seed: of the choice.
        count: command lines.
    """
    bases = _bases(valid, out)
    always = [
        Case("valid", (command, *rest), True if command != "bench" else None)
        for command, lines in bases.items()
        for rest in lines
    ]
    always += [Case("valid", (name, "--help"), True) for name in bases]
    always += [Case("contradiction", tuple(line)) for line in _contradictions(valid, out)]
    made = []
    for command, lines in bases.items():
        base = [command, *lines[0]]
        made += [Case("unknown option", (*base, option)) for option in ("--bogus", "--js", "-z", "--set-")]
        for option, values in _OPTIONS[command].items():
            made += [Case(f"{option}", (*base, option, value)) for value in values]
            made.append(Case(f"{option} without a value", (*base, option)))
        if command != "train":
            made += [Case("first argument", (command, value, *lines[0][1:])) for value in _FIRST[command]]
        else:
            made += [Case("network", (command, value, *lines[0][1:])) for value in _FIRST[command]]
    random_ = random.Random(seed)
    random_.shuffle(made)
    return always + made[: max(0, count - len(always))]
