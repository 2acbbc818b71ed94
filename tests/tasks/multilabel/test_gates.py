"""Gates of multi-label networks: recorded by sets of labels, judged by the label error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import senet
from senet.data import ImageData, MultiLabelData
from senet.gates import ablate_blocks, diagnose, plan_fold
from senet.gates.diagnosis.ablation import count_changes, error_change
from senet.gates.diagnosis.predictions import Predictions
from senet.gates.recording import label_sets
from senet.gates.recording.label_sets import LabelSets
from senet.tasks import get_task, store_task
from senet.utils.errors import DataError, GatesError
from tests.cli.helpers import answer
from tests.helpers import randomise
from tests.training.small import Pictures

CLASSES = ["round", "even", "third"]
LABELS = np.array([[n % 2, n % 4 == 0, n % 4 == 0] for n in range(20)], dtype=np.uint8)


def data() -> MultiLabelData:
    return MultiLabelData("tagged", Pictures(), LABELS, CLASSES)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(4)
    found = randomise(senet.create_model("se_resnet20", num_classes=3)).eval()
    found.pretrained_cfg |= {"label_names": CLASSES, "input_size": (3, 8, 8)}
    store_task(found, get_task("multilabel"))
    # Decisions near the threshold, so that gates decide some.
    pixels = torch.stack([senet.data.Preprocessing.of(found.pretrained_cfg).pixels(image) for image, _ in data()])
    with torch.no_grad():
        images = senet.data.Preprocessing.of(found.pretrained_cfg).normalize(pixels)
        found.fc.bias -= found(images).mean(0)
    return found


def test_classes_are_the_sets_of_labels(model: nn.Module) -> None:
    gates = senet.record_gates(model, data(), sample=20)
    assert gates.classes == ["round", "none", "even + third"]
    assert gates.blocks[0].gates.images.tolist() == [10, 5, 5]
    assert gates.sample.labels.tolist() == [2, 0, 1, 0] * 5
    for block in gates.blocks:
        for number, name in enumerate(gates.classes):
            rows = block.sample_gates[gates.sample.labels == number]
            assert block.gates.means[number] == pytest.approx(rows.mean(0, dtype=np.float64), rel=1e-5), name


def test_the_label_error_judges(model: nn.Module) -> None:
    evaluated = senet.evaluate(model, data())
    gates = senet.record_gates(model, data(), sample=0)
    ablations = ablate_blocks(model, data(), gates)
    assert {one.errors for one in ablations} == {("label error", "image error")}
    assert any(one.top1.value for one in ablations)
    plan = plan_fold(model, data(), gates, max_drop=99, blocks=[gates.blocks[0].name])
    assert plan.metric == "label error"
    assert plan.error == pytest.approx(evaluated.label_error)
    folded = senet.evaluate(senet.fold_gates(model, gates, blocks=plan.blocks), data())
    assert plan.change.value == pytest.approx(folded.label_error - evaluated.label_error, abs=1e-9)
    assert ablations[0].top1.value == pytest.approx(plan.change.value)
    assert "points of label error on 20 images" in plan.summary
    assert any("of label error" in one for one in diagnose(gates, ablations).advice)


def test_outcomes_by_hand() -> None:
    task = get_task("multilabel")
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([[1, 1, 1], [0, 1, 0]])
    found = task.outcomes(logits, labels)
    assert [one.tolist() for one in found.errors] == [[1 / 3, 0.0], [True, False]]
    expected = -torch.where(labels.bool(), logits.sigmoid(), 1 - logits.sigmoid()).log().mean(1)
    assert found.losses.tolist() == pytest.approx(expected.tolist())
    with pytest.raises(DataError, match=r"labels are \(2,\), but logits \(2, 3\)"):
        task.outcomes(logits, labels[:, 0])


def test_bounds_of_shares_are_those_of_as_many_whole_images() -> None:
    def predictions(wrong: list[float]) -> Predictions:
        return Predictions(np.array(wrong), np.zeros(8), np.zeros(8), np.zeros(8), 1.0)

    before, after = predictions([0.5] * 8), predictions([0.75, 0.75, 0.75, 0.75, 0.0, 0.5, 0.5, 0.5])
    assert count_changes(before, after) == (1.0, 0.5)
    whole = predictions([1.0, 1.0] + [0.0] * 6), predictions([1.0, 1.0] + [0.0] * 6)
    whole[1].wrong1[2] = 1.0
    assert error_change(before, after, 0.95).value == pytest.approx(6.25)
    assert error_change(before, after, 0.95).high > error_change(*whole, 0.95).value


def test_rare_sets_of_labels_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sets, "_MOST", 2)
    sets = LabelSets(data())
    assert sets.names == ["round", "other labels"]
    assert sets.of_images(np.arange(4)).tolist() == [1, 0, 1, 0]


def test_labels_of_another_task(model: nn.Module) -> None:
    single = ImageData("pictures", Pictures(), np.zeros(4), CLASSES)
    loader = senet.tasks.loader_for(model, data())
    classifier = senet.create_model("se_resnet20", num_classes=3)
    with pytest.raises(GatesError, match="trained for classification, which the labels of the data are not for"):
        senet.record_gates(classifier, loader)
    with pytest.raises(GatesError, match="trained for multilabel, which the labels of the data are not for"):
        senet.record_gates(model, [(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))])
    assert senet.record_gates(model, single, sample=0).classes == ["round"]


@pytest.mark.slow
def test_fold_by_command(tmp_path: Path, model: nn.Module) -> None:
    from tests.images import write_classes

    root = write_classes(tmp_path, {"images": 6})
    lines = ["path,label", "images/0.png,round", "images/1.png,even,third", "images/2.png,round,even"]
    (root / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    senet.save(model, tmp_path / "model.safetensors")
    out = tmp_path / "folded.safetensors"
    arguments = ["--data", f"csv:{root / 'list.csv'}", "--max-drop", 99, "--blocks", "layer1.0.*"]
    found = answer("fold", tmp_path / "model.safetensors", *arguments, "--output", out)
    assert found["error_after"] == pytest.approx(answer("evaluate", out, *arguments[:2])["label_error"])
