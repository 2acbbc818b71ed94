"""Files and names that the documentation's Python names without making them, by block."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from PIL import Image

import senet
from tests.weights.caffe_files import residual


def weights_of_libraries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write what libraries would download: weights of timm, torchvision, Cadene, a CIFAR script and the release."""
    real = timm.create_model
    torch.save(real("legacy_seresnet50").state_dict(), folder / "se_resnet50-ce0d4300.pth")
    torch.save(real("seresnet50").state_dict(), folder / "timm.pth")
    torch.save(senet.create_model("resnet20").state_dict(), folder / "resnet20.th")
    residual((3, 4, 6, 3), "resnet", 1000).write(folder, 224)[1].rename(folder / "SE-ResNet-50.caffemodel")

    def create(name: str, pretrained: bool = False, **options: Any) -> Any:
        overlay = {"file": str(folder / "timm.pth")} if pretrained else None
        return real(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **options)

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    url = torchvision.models.get_model_weights("resnet50").DEFAULT.url  # type: ignore[attr-defined]
    torch.save(torchvision.models.resnet50().state_dict(), cache / Path(url).name)
    return {"senet": senet}


def entries_of_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write a checkpoint with averaged weights, and one of an encoder with a prefix."""
    state = senet.create_model("resnet50").state_dict()
    torch.save({"model": state, "model_ema": state}, folder / "checkpoint.pth")
    prefixed = {f"encoder.{key}": tensor for key, tensor in state.items()}
    torch.save({"state_dict": prefixed}, folder / "simclr.pth")
    return {"senet": senet}


def exported_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write an exported network, and an image."""
    senet.export(senet.create_model("se_resnet20").eval(), folder / "efficientnet_b0.onnx")
    Image.new("RGB", (50, 40), "red").save(folder / "image.jpg")
    return {}


def detector_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write a detector, and an image of its data."""
    run = folder / "runs" / "cells"
    run.mkdir(parents=True)
    senet.save(senet.create_model("faster_rcnn:se_resnet20", num_classes=2, min_size=32), run / "best.safetensors")
    (folder / "cells" / "val").mkdir(parents=True)
    Image.new("RGB", (50, 40), "red").save(folder / "cells" / "val" / "0.png")
    return {}


def detector_of_ultralytics(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write a YOLO with random weights and four images with boxes, and train for one short epoch."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(folder))  # before the import: settings are written there
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    ultralytics = pytest.importorskip("ultralytics")
    ultralytics.settings.update({"raytune": False})  # it warns outside of Ray
    ultralytics.YOLO("yolov8n.yaml").save(folder / "yolov8n.pt")
    for name in ("train", "val"):
        images, labels = folder / "images" / name, folder / "labels" / name
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((64, 64), 50).convert("RGB").save(images / f"{number}.png")
            (labels / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (folder / "cells.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n  0: cell\n")
    train = ultralytics.YOLO.train
    short = {
        "epochs": 1,
        "imgsz": 64,
        "batch": 2,
        "workers": 0,
        "device": "cpu",
        "plots": False,
        "project": str(folder),
    }
    monkeypatch.setattr(ultralytics.YOLO, "train", lambda self, **options: train(self, **options | short))
    return {}


def nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make nothing: the block has all it needs, and is slow."""
    return {}


STAND_INS: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "docs/deploy.md-1": exported_network,
    "docs/detection.md-3": detector_of_a_run,
    "docs/howto/quantization.md-1": nothing,
    "docs/howto/where-to-insert.md-1": detector_of_ultralytics,
    "docs/weights.md-1": weights_of_libraries,
    "docs/weights.md-2": entries_of_files,
}
