"""An evaluation's sums, against float64 by hand; a batch of it never waits for the device."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from senet.data import ImageData, Loader, Preprocessing, open_loader
from senet.evaluation import evaluate_loader
from senet.evaluation.classification import ClassificationMetrics
from senet.evaluation.metrics import batches_between_reads
from senet.utils.errors import NonFiniteError
from tests.helpers import noting
from tests.images import picture
from tests.syncs import no_host_sync

evaluation = import_module("senet.evaluation.evaluate")

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@settings(deadline=None, max_examples=50)
@given(st.data(), st.integers(1, 8), st.integers(0, 3), st.integers(1, 4), st.integers(1, 6))
def test_sums_by_hand(data: st.DataObject, classes: int, more: int, batches: int, images: int) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    logits = torch.randint(-2, 3, (batches, images, classes + more), generator=generator).float()  # with ties
    labels = torch.randint(classes, (batches, images), generator=generator)
    scores = ClassificationMetrics(classes)
    for number, (some, own) in enumerate(zip(logits, labels, strict=True)):
        scores.watch(some, number * images)
        scores.add(some, own)
    counts, loss = scores.sums()[:-1].view(3, classes), scores.sums()[-1]
    expected = np.zeros((3, classes))
    for row, label in zip(logits.view(-1, classes + more).numpy(), labels.flatten().tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        expected[:, label] += [1, order[0] != label, label not in order[:5]]
    assert np.array_equal(counts.numpy(), expected)
    assert float(loss) == pytest.approx(
        float(F.cross_entropy(logits.flatten(0, 1).double(), labels.flatten())) * labels.numel()
    )
    assert scores.first_bad() is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("places", [[0], [3], [4, 5], [7, 2], [11]])
def test_the_first_image_that_is_not_finite(value: float, places: list[int]) -> None:
    logits = torch.randn(12, 3)
    for place in places:
        logits[place, place % 3] = value
    scores = ClassificationMetrics(3)
    for first in range(0, 12, 3):
        scores.watch(logits[first : first + 3], first)
        scores.add(logits[first : first + 3], torch.zeros(3, dtype=torch.long))
    assert scores.first_bad() == min(places)
    torch.testing.assert_close(scores.logits, logits[min(places)], rtol=0, atol=0, equal_nan=True)


def test_of_no_images() -> None:
    scores = ClassificationMetrics(4)
    assert scores.first_bad() is None
    assert torch.equal(scores.sums(), torch.zeros(13, dtype=torch.float64))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_does_not_wait(device: str) -> None:
    """On a GPU as far as that can be seen without one: of tensors without data."""
    with FakeTensorMode():
        scores = ClassificationMetrics(7)
        logits = torch.empty(4, 9, device=device)
        with no_host_sync():
            for number in range(2):
                scores.watch(logits, 4 * number)
                scores.add(logits, torch.empty(4, dtype=torch.long, device=device))
        assert scores.logits.device.type == device


@pytest.mark.parametrize(("device", "every"), [("cpu", 1), ("mps", 1), ("cuda", 32)])
def test_batches_between_reads(device: str, every: int) -> None:
    assert batches_between_reads(torch.device(device)) == every


class Pictures:
    def read(self, index: int) -> Any:
        return picture(index, 8, 8)

    def name(self, index: int) -> str:
        return f"picture {index}"


class Linear(torch.nn.Linear):
    """A network of one layer; NaN for images of its choice."""

    def __init__(self, poisoned: Iterable[int] = ()) -> None:
        super().__init__(3 * 8 * 8, 3)
        self.poisoned, self.seen = sorted(poisoned), 0

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x.flatten(1))
        places = [place - self.seen for place in self.poisoned if 0 <= place - self.seen < len(x)]
        self.seen += len(x)
        for place in places:
            logits[place, 1] = torch.nan
        return logits


def loader_of(device: torch.device | None, batch: int = 3, **options: Any) -> Loader:
    data = ImageData("pictures", Pictures(), np.arange(20) % 3, ["a", "b", "c"])
    return open_loader(data, Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3), batch=batch, device=device, **options)


@pytest.fixture(params=[1, 2, 3, 100])
def every(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(evaluation, "batches_between_reads", lambda device: request.param)
    return int(request.param)


@pytest.mark.parametrize("device", [None, CPU, pytest.param(torch.device("cuda"), marks=needs_gpu)])
def test_result_does_not_depend_on_when_it_is_read(device: torch.device | None) -> None:
    model = Linear()
    expected = evaluate_loader(model, loader_of(None))
    found = evaluate_loader(model.to(device or CPU), loader_of(device))
    if device is None or device == CPU:
        assert found == expected
    assert (found.images, found.classes) == (20, expected.classes)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_results_of_any_interval(every: int) -> None:
    model = Linear()
    assert evaluate_loader(model, loader_of(CPU)) == evaluate_loader(model, loader_of(None, memory_limit=0))


@pytest.mark.parametrize("poisoned", [[0], [7, 8], [13, 4], [19]])
def test_the_image_is_named_whenever_it_is_read(every: int, poisoned: list[int]) -> None:
    place, model = min(poisoned), Linear(poisoned)
    message = (
        rf"the logits of picture {place} \(batch {place // 3 + 1}\) are not finite \(nan\): all weights are finite"
    )
    with pytest.raises(NonFiniteError, match=message):
        evaluate_loader(model, loader_of(CPU))
    assert model.seen == min(20, 3 * every * (place // (3 * every) + 1))  # no batch more than until it is read


@needs_gpu
def test_the_image_is_named_on_a_gpu() -> None:
    device = torch.device("cuda")
    with pytest.raises(NonFiniteError, match=r"the logits of picture 13 \(batch 5\) are not finite \(nan\)"):
        evaluate_loader(Linear([13, 17]).to(device), loader_of(device))


def test_other_processes_are_waited_for(every: int) -> None:
    reported: list[Tensor] = []

    def total(values: Tensor) -> Tensor:
        reported.append(values)
        return values

    with pytest.raises(NonFiniteError, match=r"the logits of picture 4 \(batch 2\)"):
        evaluate_loader(Linear([4]), loader_of(CPU), total=total)
    assert len(reported) == 1
    assert float(reported[0][-1]) == 1
    with pytest.raises(NonFiniteError, match="the logits of an image of pictures are not finite"):
        evaluate_loader(Linear(), loader_of(CPU), total=lambda values: values + 1)


@pytest.mark.parametrize("opened_for", [None, CPU])
def test_batches_of_the_host_are_sent_ahead(monkeypatch: pytest.MonkeyPatch, opened_for: torch.device | None) -> None:
    model = Linear()
    sent: list[torch.device] = []
    expected = evaluate_loader(model, loader_of(None))
    monkeypatch.setattr(evaluation, "batch_device", lambda device: device)
    monkeypatch.setattr(
        evaluation, "prefetched", noting(sent, lambda batches, device: device, lambda batches, _: batches)
    )
    assert evaluate_loader(model, loader_of(opened_for)) == expected
    assert sent == ([CPU] if opened_for is None else [])  # otherwise the loader does it


class ReadError(Exception):
    """The evaluation reads what it has counted."""


def test_no_batch_of_an_evaluation_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loader = Linear(), loader_of(CPU)
    evaluate_loader(model, loader)  # which keeps mean and std
    monkeypatch.setattr(evaluation, "batches_between_reads", lambda device: 100)

    def read(self: ClassificationMetrics) -> int | None:
        raise ReadError

    monkeypatch.setattr(ClassificationMetrics, "first_bad", read)
    model.seen = 0
    with no_host_sync(), pytest.raises(ReadError):
        evaluate_loader(model, loader)
    assert model.seen == 20


def test_progress_is_shown_by_batch(every: int) -> None:
    seen: list[int] = []

    def progress(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
        for step in steps:
            yield step
            seen.append(step)

    evaluate_loader(Linear(), loader_of(CPU), progress=progress)
    assert seen == list(range(7))
