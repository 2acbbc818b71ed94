"""What needs one class for each image is refused with a reason."""

from pathlib import Path

import numpy as np
import pytest

import senet
from senet.cards import model_card
from senet.data.shards.writing import write_shards
from senet.deployment.metadata import Metadata
from senet.tasks import get_task, store_task
from senet.tasks.multilabel import MultiLabelEvaluation
from senet.utils.errors import DataError, ModelFileError
from tests.tasks.multilabel.test_metrics import data


def test_shards_store_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tagged has images with several labels or none, and shards store one class"):
        write_shards(data(), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_card_has_the_metrics_of_the_task() -> None:
    model = senet.create_model("se_resnet20", num_classes=4)
    store_task(model, get_task("multilabel"))
    found = MultiLabelEvaluation(
        map=81.234, f1=70.0, label_error=9.0, loss=0.1, images=12, classes=[], thresholds=[0.5] * 4, skipped=[]
    )
    card = model_card(model, "someone/tags", evaluation=found, data="tags")
    assert "| mAP | F1 | wrong labels |\n|---:|---:|---:|\n| 81.23 % | 70.00 % | 9.00 % |" in card


def test_counts_of_data_with_several_labels() -> None:
    report = senet.data.check_data(data(), workers=0)
    assert (report.images, [one.images for one in report.classes]) == (23, data().counts.tolist())
    assert np.array_equal(data().counts, data().labels.sum(0))


def test_an_exported_file_states_task_and_thresholds() -> None:
    task = {"task": "multilabel", "thresholds": [0.1, 0.9]}
    stated = Metadata(model="net", precision="fp32", classes=("a", "b"), task=task)
    assert Metadata.of(stated.entries(), "net.onnx") == stated
    assert "senet.task" not in Metadata(model="net", precision="fp32").entries()  # as in earlier versions
    for wrong in ([0.1], [0.1, 2.0], [True, False], "0.5"):
        entries = Metadata(
            model="net", precision="fp32", classes=("a", "b"), task=task | {"thresholds": wrong}
        ).entries()
        with pytest.raises(ModelFileError, match="thresholds must be a number from 0 to 1 for each of 2 labels"):
            Metadata.of(entries, "net.onnx")
