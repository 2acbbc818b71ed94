"""What commands of the documentation find where they are run: data sets, model files, and networks of few units.

Data sets have the layout of the real ones and a few small images. Networks of the catalogue keep their names and
families, and have one unit in each stage; runs of `senet study` are processes of their own, and have the real ones.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import senet
from senet.cli.common.user_code import call_function
from senet.models.bn_inception import BNInceptionSpec
from senet.models.libraries import LibrarySpec
from senet.models.table import CATALOGUE
from tests.cli.helpers import invoke
from tests.data.coco_sets import write_coco
from tests.data.torchvision_layouts import LAYOUTS
from tests.documentation.blocks import ROOT
from tests.documentation.commands import shortened
from tests.images import pack, write_classes
from tests.weights.caffe_files import inception, residual

CLASSES = 5  # of the data sets in place of ImageNet
# Networks of other libraries, which have no units to leave out.
_LIBRARIES = {"vgg16": "timm/resnet10t", "inception_resnet_v2": "timm/resnet10t", "mobilenet": "timm/mobilenetv1_100"}
# Folders in place of torchvision's data sets.
_TORCHVISION = {
    "CIFAR": ("CIFAR10", "CIFAR100"),
    "PLACES": ("Places365",),
    "DIR": ("DTD", "Places365", "EMNIST", "SVHN"),
}


def shrink_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one unit in each stage of every network of the catalogue."""
    for name, row in CATALOGUE.items():
        if isinstance(row.spec, LibrarySpec):
            spec = LibrarySpec(_LIBRARIES[name])
        elif isinstance(row.spec, BNInceptionSpec):
            spec = replace(row.spec, modules=row.spec.modules[:1])
        else:
            spec = replace(row.spec, units=(1,) * len(row.spec.units))
        monkeypatch.setitem(CATALOGUE, name, replace(row, spec=spec))


def lay_out(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write what a page's commands name, and nothing else, into a folder.

    Args:
        folder: an empty folder, the working directory.
        text: all commands of the page.
        monkeypatch: for the checksums that torchvision knows of its data sets.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    digits = {str(digit): 4 for digit in range(10)}
    _splits(folder / "classes", digits)
    for name in ("imagenet", "IMAGENET"):
        if name in text:
            _splits(folder / name, {f"n{number}": 4 for number in range(CLASSES)})
    for name, kinds in _TORCHVISION.items():
        if f"root={name}" in text:
            for kind in kinds:
                (folder / name).mkdir(exist_ok=True)
                LAYOUTS[kind](folder / name, monkeypatch)
    if "coco:cells" in text:
        write_coco(folder / "cells", 8, 4)
    if "coco:COCO" in text:
        write_coco(folder / "COCO", 4, 2)
    if "csv:tags" in text:
        _lists(folder / "tags")
    if "SVHN" in text:
        shutil.copy(folder / "DIR" / "train_32x32.mat", folder / "DIR" / "extra_32x32.mat")
    if "paper runs/ " in text:  # a folder of earlier runs
        shutil.copytree(ROOT / "docs" / "studies" / "init", folder / "runs" / "init")
    made = re.findall(r" (?:-o|--output) (\S+)", text)
    for name, write in _FILES.items():
        if name in text and not any(Path(name).is_relative_to(output) for output in made):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)


def _splits(folder: Path, classes: dict[str, int]) -> None:
    for split in ("train", "val"):
        write_classes(folder / split, classes)


def _lists(folder: Path) -> None:
    """Write file lists of images with any number of labels."""
    write_classes(folder, {"images": 8})
    labels = ("red,round", "red", "", "round")
    for split, numbers in (("train", range(8)), ("val", range(4))):
        lines = [f"images/{number}.png,{labels[number % 4]}\n" for number in numbers]
        (folder / f"{split}.csv").write_text("".join(lines), encoding="utf-8")


def _network(name: str, **options: object) -> Callable[[Path], None]:
    """Return a function that writes a model file of a network."""
    return lambda path: senet.save(senet.create_model(name, **options), path)  # type: ignore[arg-type]


def _weights(name: str, **options: object) -> Callable[[Path], None]:
    """Return a function that writes a network's weights as a training script does."""
    return lambda path: torch.save(senet.create_model(name, **options).state_dict(), path)  # type: ignore[arg-type]


def _detector(path: Path) -> None:
    """Write weights of the detector in examples/insertion."""
    torch.save(call_function(f"{ROOT}/examples/insertion/detector.py:Detector").state_dict(), path)


def _caffe(kind: str) -> Callable[[Path], None]:
    """Return a function that writes weights as the authors' release has them."""

    def write(path: Path) -> None:
        if kind == "inception":
            net = inception(dict(CATALOGUE["bn_inception"].spec.modules), CLASSES)
        else:
            net = residual((1, 1, 1, 1), kind, CLASSES)
        net.write(path.parent, 32)[1].rename(path)

    return write


def _archive(path: Path) -> None:
    pack(write_classes(path.with_suffix(""), {str(number): 1 for number in range(10)}))


def _run(network: str, seed: int) -> Callable[[Path], None]:
    """Return a function that trains a run of a comparison, as the page's command trains the first."""

    def write(path: Path) -> None:
        command = f"senet train {network} --data digits --recipe digits --set seed={seed} --output {path}"
        result = invoke(*shortened(command.split())[1:])
        assert result.exit_code == 0, result.stderr

    return write


_FILES: dict[str, Callable[[Path], None]] = {
    "runs/digits/best.safetensors": _network("se_resnet20"),
    "model.safetensors": _network("se_resnet50"),
    "runs/plain/best.safetensors": _network("resnet20"),
    "runs/se/best.safetensors": _network("se_resnet20"),
    "svhn.safetensors": _network("resnet20"),
    "detector.pth": _detector,
    "resnet20.th": _weights("resnet20"),
    "resnet50.pth": _weights("resnet50", stride_in="conv2", pool="pad", num_classes=CLASSES),
    "cifar10/val.tar": _archive,
    "runs/resnet20-2": _run("resnet20", 2),
    "runs/se_resnet20-1": _run("se_resnet20", 1),
    "runs/se_resnet20-2": _run("se_resnet20", 2),
    "SE-BN-Inception.caffemodel": _caffe("inception"),
    "SE-ResNet-50.caffemodel": _caffe("resnet"),
    "SE-ResNet-101.caffemodel": _caffe("resnet"),
    "SE-ResNet-152.caffemodel": _caffe("resnet"),
    "SE-ResNeXt-50.caffemodel": _caffe("resnext"),
    "SE-ResNeXt-101.caffemodel": _caffe("resnext"),
    "SENet.caffemodel": _caffe("senet154"),
}
