"""Gates of detectors: recorded image by image, judged by AP, folded in the backbone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import senet
from senet.data import ImageData
from senet.gates import ablate_blocks, diagnose, plan_fold, write_page
from senet.gates.diagnosis.ablation import TOP1
from senet.gates.diagnosis.gate_overrides import override_gates
from senet.gates.diagnosis.set_predictions import SetPredictions
from senet.graph.se_modules import find_se
from senet.tasks import get_task, loader_for
from senet.tasks.collector import Collector
from senet.tasks.detection.average_precision import Found, MatchedBoxes, Objects, average_precisions
from senet.utils.errors import DataError, GatesError
from tests.helpers import randomise, shallow_resnet20
from tests.tasks.detection.small import CLASSES, Scenes, detector, scenes

TASK = get_task("detection")


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with shallow_resnet20():
        found = detector()
        with torch.no_grad():  # few of an untrained network's boxes have more than the lowest score
            found.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 0.3, 0.5]))
        randomise(found.backbone)
        yield found.eval()


def test_gates_are_those_of_single_images(model: Any) -> None:
    gates = senet.record_gates(model, loader_for(model, scenes(), senet.evaluation.InputOptions(batch=4)), sample=7)
    assert gates.classes == ["dark", "dark + bright"]
    assert gates.images == 7
    assert gates.sample.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert [block.label for block in gates.blocks] == [f"SE_{stage}_1" for stage in (2, 3, 4)]
    # Each image alone, without the padding of a batch, normalized by the detector.
    unit = find_se(model)[-1]
    for index in range(2):
        seen: list[torch.Tensor] = []
        with unit.gate.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output)):
            senet.predict(model, [Scenes().read(index)])
        expected = seen[0].flatten().double() * unit.gain
        assert gates.blocks[-1].sample_gates[index] == pytest.approx(expected.tolist(), rel=1e-5)


def test_ablation_is_the_change_of_ap(model: Any) -> None:
    data = scenes(4)
    block = senet.record_gates(model, data, sample=0).blocks[-1]
    before = senet.evaluate(model, data)
    values = {block.name: torch.from_numpy(block.gates.mean)}
    with override_gates(model, values):
        after = senet.evaluate(model, data)
    (found,) = ablate_blocks(model, data, values, resamples=20)
    assert (found.errors, found.better, found.method) == (("AP", "AP50"), "higher", "bootstrap")
    assert found.top1.value == pytest.approx(before.ap - after.ap, abs=1e-9)
    assert found.top5.value == pytest.approx(before.ap50 - after.ap50, abs=1e-9)
    assert found.loss is None
    assert found.top1.low <= found.top1.value <= found.top1.high
    assert found.logits > 0


def test_folded_in_the_backbone(model: Any, tmp_path: Path) -> None:
    data = scenes(3)
    gates = senet.record_gates(model, data, sample=3)
    first, second, third = (block.name for block in gates.blocks)
    plan = plan_fold(model, data, gates, max_drop=99, blocks=[second])
    assert plan.blocks == (second,)
    assert (plan.metric, plan.better) == ("AP", "higher")
    assert plan.error == pytest.approx(senet.evaluate(model, data).ap)
    assert "points of AP lost on 3 images" in plan.summary
    caution = "Bounds of AP are too narrow with 3 images: use 30 or more"
    assert caution in plan.summary
    assert (plan.judged.caution(30), TOP1.caution(3)) == ("", "")
    folded: Any = senet.fold_gates(model, gates, blocks=plan.blocks)
    assert plan.change.value == pytest.approx(plan.error - senet.evaluate(folded, data).ap, abs=1e-3)
    senet.save(folded, tmp_path / "folded.safetensors")
    loaded: Any = senet.load(tmp_path / "folded.safetensors").eval()
    assert {unit.name for unit in find_se(loaded)} == {first, third}
    assert plan.saved_params == sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in loaded.parameters())
    values = {third: torch.from_numpy(gates.blocks[-1].gates.mean)}
    diagnosis = diagnose(gates, ablate_blocks(model, data, values, resamples=5))
    text = str(diagnosis.to_json())
    assert "points of AP lost" in text
    assert diagnosis.advice[0].startswith(caution)
    assert "logits change" not in text
    write_page(gates, diagnosis, tmp_path / "page.html")


def test_precision_of_some_images_is_that_of_their_boxes() -> None:
    generator = np.random.default_rng(3)
    objects, found = [], []
    for count in (1, 3, 0, 5, 2):
        corners = generator.uniform(0, 50, (count, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(5, 30, (count, 2))], 1)
        classes = generator.integers(0, 2, count)
        objects.append(Objects(boxes=boxes, classes=classes, areas=np.full(count, 99.0), crowd=np.zeros(count, bool)))
        noise = generator.normal(0, 2, (count, 4))
        found.append(Found(boxes=boxes + noise, classes=classes, scores=generator.random(count)))
    matched = MatchedBoxes(objects, found, 2)
    for images in (None, np.array([3, 3, 1, 0, 2]), np.array([4, 4, 4, 4, 4])):
        chosen = range(5) if images is None else images.tolist()
        precision = average_precisions([objects[i] for i in chosen], [found[i] for i in chosen], 2)[..., 0]
        known = precision[precision > -1]
        assert matched.precision(images)[0] == pytest.approx(100 * known.mean(), rel=1e-12)


class Means(Collector):
    """The judged metrics are means of numbers, whose standard error is known."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def add(self, outputs: Any, reference: Any, indices: Any) -> None:
        raise NotImplementedError

    def changes(self) -> Any:
        return np.ones(len(self.values))

    def deviation(self) -> float:
        return 1.0

    def judged(self, images: Any = None) -> tuple[float, float]:
        mean = float(self.values.mean() if images is None else self.values[images].mean())
        return mean, mean


def test_bounds_are_those_of_the_standard_error() -> None:
    generator = np.random.default_rng(5)
    values, losses = generator.normal(60, 9, 400), generator.normal(1, 2, 400)
    before, after = (SetPredictions(Means(one), TASK.judged) for one in (values, values - losses))
    change = before.changes_to(after, 1000, 0.95, 0)[0]
    assert change.value == pytest.approx(losses.mean())
    assert change.high - change.value == pytest.approx(1.645 * losses.std() / 20, rel=0.1)
    assert change.high - change.value == pytest.approx(change.value - change.low)
    budget = change.value + 0.05
    needed = before.images_needed(change, budget)
    assert needed is not None
    width = (change.high - change.value) * (400 / needed) ** 0.5
    assert change.value + width == pytest.approx(budget, rel=1e-3)
    assert before.images_needed(change, change.value) is None
    one, other = (SetPredictions(Means(values[:1]), TASK.judged) for values in (values, values - losses))
    assert one.changes_to(other, 10, 0.95, 0)[0].high == np.inf


def test_data_without_boxes(model: Any) -> None:
    plain = ImageData("plain", scenes().source, np.zeros(4), CLASSES)
    with pytest.raises(DataError, match="plain has no boxes, which task=detection needs"):
        senet.record_gates(model, plain)
    with pytest.raises(GatesError, match="trained for detection, which the labels of the data are not for"):
        senet.record_gates(model, [(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))])
