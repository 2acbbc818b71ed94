import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

import senet
from senet.evaluation import InputOptions
from senet.gates import record_gates
from senet.gates.report.grad_cam import compute_grad_cam
from senet.tasks import loader_for
from tests.images import write_classes

NAMES = [f"layer{stage}.{unit}.bn2.se" for stage in (1, 2, 3) for unit in (0, 1, 2)]

CONFIG = {
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "mean": (0.5,) * 3,
    "std": (0.25,) * 3,
    "interpolation": "bilinear",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", {"cat": 4, "dog": 3})


def by_hand(model: nn.Module, module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Equations 1 and 2 of the paper: the map weighted by the means of its gradients, and what of it is positive."""
    kept: dict[str, torch.Tensor] = {}
    handle = module.register_forward_hook(lambda m, a, out: kept.update(out=out))
    logits = model(images)
    handle.remove()
    score = logits[torch.arange(len(labels)), labels].sum()
    (gradient,) = torch.autograd.grad(score, kept["out"])
    heat = (gradient.mean((2, 3), keepdim=True) * kept["out"]).sum(1).relu()
    return (heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-30)).detach().numpy()


def test_maps_are_those_of_the_formula(data: Path) -> None:
    torch.manual_seed(0)
    model = senet.create_model("se_resnet20", num_classes=2)
    model.pretrained_cfg = CONFIG | {"label_names": ["cat", "dog"]}
    for module in model.modules():
        if isinstance(module, senet.SqueezeExcitation):  # gates that differ
            nn.init.normal_(next(iter(reversed(list(module.parameters())))), std=1.0)
    loader = loader_for(model, str(data), InputOptions(batch=3))
    gates = record_gates(model, loader, sample=16)
    modes = [module.training for module in model.modules()]
    found = compute_grad_cam(model, loader, gates, per_class=2)
    assert [module.training for module in model.modules()] == modes
    assert gates.sample.labels[found.places].tolist() == [0, 0, 1, 1]
    assert list(found.maps) == NAMES
    pixels, _ = next(iter(loader_for(model, str(data), InputOptions(batch=7)).epoch()))
    images = loader.preprocessing.normalize(pixels)[gates.sample.indices[found.places]]
    model.eval()
    for name in (NAMES[0], NAMES[-1]):
        expected = by_hand(model, model.get_submodule(name.removesuffix(".se")), images, torch.tensor([0, 0, 1, 1]))
        size = min(28, expected.shape[-1])
        assert found.maps[name].shape == (4, size, size)
        if expected.shape[-1] <= 28:
            np.testing.assert_allclose(found.maps[name], expected, atol=1e-4)
        assert found.maps[name].max() == pytest.approx(1)


def test_se_of_timm_and_parameters_without_gradient(data: Path) -> None:
    model = timm.create_model("test_efficientnet", num_classes=2).requires_grad_(False)
    loader = loader_for(model, str(data), InputOptions(batch=7))
    gates = record_gates(model, loader, sample=4)
    found = compute_grad_cam(model, loader, gates, classes=["dog"])
    assert set(found.maps) <= {block.name for block in gates.blocks}
    assert found.maps
    for values in found.maps.values():
        assert values.min() >= 0
        assert values.max() <= 1


def test_what_has_no_maps(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = senet.create_model("se_resnet20", num_classes=2)
    model.pretrained_cfg = CONFIG | {"label_names": ["cat", "dog"]}
    loader = loader_for(model, str(data), InputOptions(batch=7))
    gates = record_gates(model, loader, sample=0)
    with pytest.raises(ValueError, match="no sampled images of these classes; raise --sample"):
        compute_grad_cam(model, loader, gates)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ValueError, match=r"Grad-CAM needs captum \(.+\): pip install"):
        compute_grad_cam(model, loader, gates)
