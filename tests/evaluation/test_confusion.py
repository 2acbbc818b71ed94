import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

import senet
from senet.data import ImageData, MultiLabelData, open_loader
from senet.data.preprocessing import Preprocessing
from senet.evaluation.classification import ClassificationMetrics
from tests.training.small import Pictures

PLAIN = Preprocessing(resize=8, crop=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def data(images: int = 20, classes: int = 4) -> ImageData:
    return ImageData("pictures", Pictures(), np.arange(images) % classes, [str(n) for n in range(classes)])


@pytest.mark.parametrize("logits", [4, 6])
def test_the_matrix_is_scikit_learns_for_any_number_of_processes(logits: int) -> None:
    torch.manual_seed(3)
    values, labels = torch.randn(20, logits), torch.arange(20) % 4
    loader = open_loader(data(), PLAIN, batch=20)
    parts = [ClassificationMetrics(4, confusion=True) for _ in range(3)]
    for metrics, rows in zip(parts[:2], (slice(0, 7), slice(7, 20)), strict=True):  # the third process has no image
        metrics.watch(values[rows], 0)
        metrics.add(values[rows], labels[rows])
    found = parts[0].result(sum(metrics.sums() for metrics in parts), loader)  # type: ignore[arg-type]
    assert found.confusion is not None
    assert np.array_equal(found.confusion, confusion_matrix(labels, values.argmax(1), labels=range(logits))[:4, :4])
    plain = ClassificationMetrics(4)
    plain.watch(values, 0)
    plain.add(values, labels)
    expected = plain.result(plain.sums(), loader)
    assert expected.confusion is None
    assert (expected.top1_error, expected.top5_error) == (found.top1_error, found.top5_error)
    assert expected.loss == pytest.approx(found.loss)


def test_networks_of_several_labels_have_none() -> None:
    model = senet.create_model("resnet20", num_classes=4)
    images = data(8)
    found = senet.evaluate(model, images, confusion=True, resize=8, crop=8)
    assert found.confusion.sum(1).tolist() == [2, 2, 2, 2]
    assert found.confusion.trace() == 8 - round(found.top1_error * 8 / 100)
    model.pretrained_cfg["task"] = "multilabel"
    with pytest.raises(ValueError, match=r"one class for each image.*for multilabel; leave out confusion="):
        senet.evaluate(model, MultiLabelData.of(images), confusion=True, resize=8, crop=8)
