import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from senet.data import MultiLabelData, open_loader
from senet.tasks import get_task
from senet.tasks.multilabel.metrics import MultiLabelMetrics, average_precision, best_threshold
from senet.utils.errors import DataError
from tests.training.small import Pictures, small_recipe

LABELS = (np.random.default_rng(1).random((23, 4)) < [0.5, 0.4, 0.3, 0.0]).astype(np.uint8)


def data(labels: np.ndarray = LABELS) -> MultiLabelData:
    return MultiLabelData("tagged", Pictures(), labels, ["a", "b", "c", "d"])


def loader(rank: int = 0, world_size: int = 1, labels: np.ndarray = LABELS) -> "object":
    return open_loader(data(labels), small_recipe().preprocessing, batch=6, rank=rank, world_size=world_size)


@pytest.mark.parametrize("digits", [1, 8])  # with and without equal scores
def test_average_precision_is_scikit_learns(digits: int) -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        scores, labels = random.random(17).round(digits), (random.random(17) < 0.4).astype(float)
        labels[0] = 1
        assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_the_threshold_has_the_highest_f1() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        scores, labels = random.random(9), (random.random(9) < 0.4).astype(float)
        labels[0] = 1
        best = max(f1_score(labels, scores >= cut) for cut in scores)
        assert f1_score(labels, scores >= best_threshold(scores, labels)) == pytest.approx(best)


def evaluate(world_size: int = 1) -> tuple[MultiLabelMetrics, torch.Tensor]:
    """The sums of all processes; the logits of an image depend on its labels and its place alone."""
    sums = []
    for rank in range(world_size):
        batches = loader(rank, world_size)
        metrics = MultiLabelMetrics(batches)
        for number, (pixels, labels) in enumerate(batches.epoch()):
            logits = pixels.double().mean((1, 2, 3))[:, None] / 100 * torch.tensor([1.0, -1.0, 0.5, -2.0]) + labels
            if len(labels):
                metrics.watch(logits, number * batches.batch)
                metrics.add(logits, labels)
        sums.append(metrics.sums())
    return metrics, torch.stack(sums).sum(0)


def test_results_are_scikit_learns_for_any_number_of_processes() -> None:
    metrics, sums = evaluate()
    whole = metrics.result(sums, loader())
    pixels = torch.cat([pixels for pixels, _ in loader().epoch()])
    logits = pixels.double().mean((1, 2, 3))[:, None] / 100 * torch.tensor([1.0, -1.0, 0.5, -2.0]) + torch.from_numpy(
        LABELS
    )
    scores = logits.sigmoid().numpy()
    expected = [100 * average_precision_score(LABELS[:, k], scores[:, k]) for k in range(3)]
    assert [one.ap for one in whole.classes] == pytest.approx(expected)
    assert [(one.name, one.images) for one in whole.classes] == list(
        zip("abc", LABELS.sum(0)[:3].tolist(), strict=True)
    )
    assert whole.map == pytest.approx(np.mean(expected))
    assert whole.f1 == pytest.approx(100 * f1_score(LABELS, scores > 0.5, average="micro"))
    assert whole.label_error == pytest.approx(100 * ((scores > 0.5) != LABELS).mean())
    assert whole.loss == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(LABELS).double()))
    )
    assert whole.thresholds[3] == 0.5  # no image has the label
    assert whole.stored_f1 == -1  # no file
    stored = [0.3, 0.6, 0.4, 0.5]
    metrics._stored = stored
    expected_f1 = 100 * f1_score(LABELS, scores >= np.array(stored), average="micro")
    assert metrics.result(sums, loader()).stored_f1 == pytest.approx(expected_f1)
    for world_size in (2, 3):
        metrics, sums = evaluate(world_size)
        found = metrics.result(sums, loader())
        assert (found.map, found.classes, found.thresholds) == (whole.map, whole.classes, whole.thresholds)


def test_data_without_any_label_are_an_error() -> None:
    batches = loader(labels=np.zeros((5, 4), dtype=np.uint8))
    metrics = MultiLabelMetrics(batches)
    metrics.watch(torch.zeros(5, 4), 0)
    metrics.add(torch.zeros(5, 4), torch.zeros(5, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match="no image of tagged has a label"):
        metrics.result(metrics.sums(), batches)
    with pytest.raises(DataError, match="no image of tagged has a label"):
        get_task("multilabel").check_validation(batches.data)
