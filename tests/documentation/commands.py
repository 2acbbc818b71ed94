"""Commands of the documentation, as tests run them: what is shortened, what is slow, and what is not run and why.

A command runs in its page's temporary folder, where relative paths of the documentation exist (`stand_ins.py`).
"""

from collections.abc import Sequence

# Commands that are not run, by their first words, and the reason.
NOT_RUN = {
    "make setup": "installs from a package index; .ci/run starts with it",
    "make demo": ".ci/run runs it",
    "make check": ".ci/run runs it, and this test is a part of the whole",
    "make test": "it would run this test",
    "pip install .": "installs from a package index; tests/test_packaging.py builds the package and reads its extras",
    "senet export timm/efficientnet_b0 --weights": "downloads weights",
    "pip install torch torchvision": "downloads PyTorch",
    "docker": "needs an engine and PyTorch; tests/test_repository.py builds the package from the files of the image",
    "senet bench se_resnet50 --device cuda": "needs a GPU",
    "python examples/integrations/train_transformers.py": "needs transformers, accelerate; tests/integrations runs it",
    "python benchmarks/gpu.py": "needs a GPU",
    "python benchmarks/finetune.py": "needs CIFAR-10 and an hour",
    "python benchmarks/deploy.py": "takes half an hour; tests/benchmarks/test_deploy.py runs it with a tiny network",
    "python benchmarks/deploy_sweep.py": "takes hours; tests/benchmarks/test_deploy_sweep.py runs it with a few",
    "torchrun --nnodes 8": "needs eight machines; the line above it runs with two processes on one",
}

# Commands that only the slow suite runs, by their first words, and the reason.
SLOW = {
    "senet models se_resnet50 --plot": "draws a figure",
    "senet doctor": "compiles a pass",
    "senet models --paper": "counts every network of the paper",
    "senet bench": "times steps, and compiles networks",
    "senet train": "takes seconds each; one run a page is enough to be quick",
    "senet detect": "trains a detector, or needs the run",
    "senet predict": "needs the run",
    "senet evaluate": "needs the run",
    "senet gates": "records gates and writes a page",
    "senet fold": "needs the run",
    "senet compare": "needs the runs",
    "senet shard": "writes every image of digits",
    "senet study": "runs a process for each arm and seed",
    "senet paper runs/": "needs the runs",
    "senet insert runs/": "loads and saves a network",
    "senet insert examples/": "loads and saves a network",
    "senet sites examples/insertion/video.py": "builds a network of 33 million parameters",
    "senet sites examples/insertion/detector.py:Detector --plot": "draws a figure",
    "senet sites resnet50 --placement post --plot": "draws a figure",
    "senet sites torchvision/mobilenet_v2": "counts its cost",
    "senet export": "loads and saves a network",
    "python examples/integrations/": "trains a network",
    "torchrun --standalone": "starts processes",
}
# Exceptions of the table above: commands that the fast suite runs, too.
FAST = (
    "senet train se_resnet20 --data digits --recipe digits --output runs/digits",
    "senet train --recipe",
    "senet evaluate runs/digits/best.safetensors",
    "senet predict runs/digits/best.safetensors",
    "senet fold runs/digits/best.safetensors --data digits --max-drop 1 --dry-run",
    "senet paper",
)

# Settings of recipes: one epoch of a few small images.
_RECIPE = {"epochs": "1", "batch": "4", "base_batch_size": "4", "lr": "0.01"}
_RECIPE |= {"crop_size": "32", "resize": "32", "workers": "0"}
# Those of recipes for detectors.
_DETECTION = {"iterations": "2", "batch": "2", "lr": "0.01", "resize": "64", "max_size": "96", "scales": "[]"}
_DETECTION |= {"workers": "0"}
_DETECTORS = ("coco-2x", "detection-small")
# Options that replace those of a command, or are added to it; and keys of --set likewise.
_OPTIONS = {
    "bench": {"--rounds": "6", "--batch": "2", "--size": "32"},
    "study": {"--seeds": "1"},
}
_TRAINING = ("train", "study")
# Data sets by the name in the documentation, and what stands for them.
DATA = {"digits": "classes"}
# Pages whose networks have one unit in each stage, because they train or time those for ImageNet.
SHRUNK = (
    "docs/cards/cifar.md",
    "docs/cards/imagenet.md",
    "docs/detection.md",
    "docs/performance.md",
    "docs/reproduce.md",
    "docs/training.md",
)


def starts(words: Sequence[str], table: Sequence[str]) -> str | None:
    """Return the entry of a table that a command begins with; the longest, or None."""
    line = " ".join(words)
    return max((entry for entry in table if line.startswith(entry)), key=len, default=None)


def is_slow(words: Sequence[str]) -> bool:
    """Return whether only the slow suite runs a command: the longest entry that it begins with says so."""
    return len(starts(words, list(SLOW)) or "") > len(starts(words, FAST) or "")


def shortened(words: Sequence[str]) -> list[str]:
    """Return the command as tests run it: with small data, one epoch, few seeds and rounds, and small images."""
    program, *arguments = words
    if program == "torchrun":  # two processes on the CPU
        end = words.index("-m") + 2
        return [*_replaced(words[:end], {"--nproc-per-node": "2"}), *shortened(["senet", *words[end:]])[1:]]
    command, *rest = arguments[1:] if arguments[0] == "detect" else arguments
    changed = [DATA.get(word, word) if before in ("--data", "shard") else word for before, word in _pairs(arguments)]
    if "--show" in rest:
        return [program, *changed]
    if rest[:1] != ["report"]:
        changed = _replaced(changed, _OPTIONS.get(command, {}))
    if command in _TRAINING and "--recipe" in rest:
        changed = _set(changed, _DETECTION if any(name in rest for name in _DETECTORS) else _RECIPE)
        if command == "study" and "IMAGENET" in rest:  # planned, with its costs; docs/studies.md has one that is run
            changed.append("--dry-run")
    if command == "evaluate" and "--resize" in rest:
        changed = _replaced(changed, {"--resize": "36", "--crop": "32"})
    return [program, *changed]


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(["", *words], words, strict=False))


def _replaced(words: Sequence[str], options: dict[str, str]) -> list[str]:
    """Return a command with other values of options, which are appended if it has none."""
    changed = [options.get(before, word) for before, word in _pairs(words)]
    for name, value in options.items():
        changed += [] if name in words else [name, value]
    return changed


def _set(words: Sequence[str], settings: dict[str, str]) -> list[str]:
    """Return a command with other values of --set KEY=VALUE, which are appended if it has none."""
    keys = {word.partition("=")[0] for before, word in _pairs(words) if before == "--set"}
    changed = [
        f"{key}={settings[key]}" if before == "--set" and (key := word.partition("=")[0]) in settings else word
        for before, word in _pairs(words)
    ]
    for key, value in settings.items():
        changed += [] if key in keys else ["--set", f"{key}={value}"]
    return changed
