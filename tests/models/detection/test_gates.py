"""Gates of a detector: those of its backbone."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

import senet
from senet import SEBatchNorm
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close, randomise, shallow_resnet20
from tests.models.detection.small import SMALL


class Constant(nn.Module):
    """A batch norm whose SE has a constant gate."""

    def __init__(self, norm: SEBatchNorm, gate: NDArray[np.float64]) -> None:
        super().__init__()
        self.norm, self.gate = norm.to_batch_norm().eval(), torch.from_numpy(gate).float()[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.gate


@pytest.mark.parametrize("frozen", [False, True])
def test_gates_of_the_backbone_are_recorded_and_folded(frozen: bool) -> None:
    torch.manual_seed(0)
    with shallow_resnet20():
        model: Any = randomise(senet.create_model("retinanet:se_resnet20", freeze_bn=frozen, **SMALL)).eval()
    batches = [(torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.long))]
    gates = senet.record_gates(model.backbone, batches, classes=["any"])
    assert [block.label for block in gates.blocks] == ["SE_2_1", "SE_3_1", "SE_4_1"]
    names = [gates.blocks[2].name]
    folded = senet.fold_gates(model.backbone, gates, blocks=names, example=batches[0][0])
    whole: Any = senet.fold_gates(model, {f"backbone.{names[0]}": torch.from_numpy(gates.blocks[2].gates.mean)})
    for name, value in whole.backbone.state_dict().items():
        assert_close(value, folded.state_dict()[name], 1e-6)
    site = names[0].removesuffix(".se")
    assert [one.name for one in find_inserted_se(folded)] == ["body.layer1.0.bn2", "body.layer2.0.bn2"]
    model.backbone.set_submodule(site, Constant(model.backbone.get_submodule(site), gates.blocks[2].gates.mean))
    with torch.no_grad():
        found, expected = folded(batches[0][0]), model.backbone(batches[0][0])
    for key, value in expected.items():
        assert_close(found[key], value, 1e-5)


def test_a_detector_of_others_is_refused() -> None:
    with shallow_resnet20():
        backbone = senet.create_model("retinanet:se_resnet20", **SMALL).backbone
    model = RetinaNet(backbone, num_classes=3, min_size=32, max_size=32).eval()
    with pytest.raises(senet.GatesError, match="give the part with SE, such as its child `backbone`"):
        senet.fold_gates(model, {"backbone.body.layer1.0.bn2.se": torch.ones(16)})
