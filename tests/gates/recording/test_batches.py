from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import senet
from senet.data import Preprocessing, open_loader
from senet.data.images import ImageData
from senet.data.loading import loader as loader_module
from senet.gates.recording.batches import as_loader, loader_length, numbered_batches, with_progress
from senet.gates.recording.recorder import record_gates
from senet.utils.errors import DataError
from tests.gates.recorded import flat, same_bits

NAMES = ["ant", "bee", "cat"]


class _Source:
    """Images in memory, of which some cannot be read."""

    def __init__(self, bad=()):
        self.bad = bad

    def read(self, index):
        from PIL import Image

        if index in self.bad:
            raise DataError(f"cannot read the image {index}")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (12, 12, 3), dtype=np.uint8))

    def name(self, index):
        return f"{index}.png"


def _data(bad=()):
    return ImageData("source:test", _Source(bad), np.arange(11) % 3, NAMES)


def _loader(bad=(), *, batch=4, memory=True):
    preprocessing = Preprocessing(10, 8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    limit = {} if memory else {"memory_limit": 0}
    return open_loader(_data(bad), preprocessing, batch=batch, skip_bad=True, **limit)


@pytest.mark.parametrize("memory", [True, False])
def test_a_loader_gives_images_pixels_labels_and_places(memory):
    loader, model = _loader(memory=memory), torch.nn.Linear(1, 1).double()
    found = list(numbered_batches(loader, model))
    assert [batch.number for batch in found] == [0, 1, 2]
    assert np.concatenate([batch.indices for batch in found]).tolist() == list(range(11))
    for batch, (pixels, labels) in zip(found, loader.epoch(), strict=True):
        assert torch.equal(batch.pixels, pixels)
        assert torch.equal(batch.labels, labels)
        assert batch.images.dtype == torch.float64
        assert torch.equal(batch.images, loader.preprocessing.normalize(pixels).double())
    assert [batch.labels.tolist() for batch in numbered_batches(loader, model)] == [
        [0, 1, 2, 0],
        [1, 2, 0, 1],
        [2, 0, 1],
    ]


@pytest.mark.parametrize("memory", [True, False])
def test_a_loader_for_a_device_gives_pixels_on_the_host(memory, monkeypatch):
    """They are recorded there."""
    monkeypatch.setattr(loader_module, "prefetched", lambda *_: pytest.fail("pixels went to the device"))
    limit = {} if memory else {"memory_limit": 0}
    loader = open_loader(_data(), _loader().preprocessing, batch=4, device="cpu", **limit)
    for one, other in zip(numbered_batches(loader, torch.nn.Linear(1, 1)), _loader().epoch(), strict=True):
        assert torch.equal(one.pixels, other[0])
        assert torch.equal(one.labels, other[1])


@pytest.mark.parametrize("memory", [True, False])
def test_parts_and_starts_are_batches_of_the_whole(memory):
    loader, model = _loader(memory=memory, batch=2), torch.nn.Linear(1, 1)
    whole = list(numbered_batches(loader, model))
    for part in ((0, 2), (1, 2), (2, 3)):
        for start in (0, 3):
            found = list(numbered_batches(loader, model, start=start, part=part))
            expected = [b for b in whole if b.number >= start and b.number % part[1] == part[0]]
            assert [b.number for b in found] == [b.number for b in expected]
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one.images, other.images)
                assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize("memory", [True, False])
def test_images_that_cannot_be_read_leave_the_others_places(memory):
    bad = (1, 4, 5, 6, 7)
    found = list(numbered_batches(_loader(bad, memory=memory), torch.nn.Linear(1, 1)))
    assert np.concatenate([b.indices for b in found]).tolist() == [0, 2, 3, 8, 9, 10]
    assert all(len(b.labels) for b in found)
    assert np.concatenate([b.labels for b in found]).tolist() == [0, 2, 0, 2, 0, 1]


def test_any_iterable_will_do():
    images, labels = torch.randn(7, 3, 8, 8), torch.arange(7, dtype=torch.int16) % 3
    loader = DataLoader(TensorDataset(images, labels), batch_size=3)
    assert loader_length(loader) == 3
    found = list(numbered_batches(loader, torch.nn.Linear(1, 1)))
    assert torch.equal(torch.cat([b.images for b in found]), images)
    assert found[0].labels.dtype == torch.int64
    assert found[0].pixels is None
    part = list(numbered_batches(loader, torch.nn.Linear(1, 1), part=(1, 2)))
    assert [b.indices.tolist() for b in part] == [[3, 4, 5]]


class _Stream(IterableDataset[Any]):
    def __iter__(self):
        for n in range(5):
            yield torch.full((3, 8, 8), float(n)), n % 3


def test_a_stream_has_no_length_and_ends():
    loader, steps = DataLoader(_Stream(), batch_size=2), []

    def progress(numbers, total, what):
        assert total == 0
        for number in numbers:
            steps.append(number)
            yield number

    assert loader_length(loader) is None
    found = list(with_progress(loader, torch.nn.Linear(1, 1), progress, "test"))
    assert [b.number for b in found] == [0, 1, 2]
    assert steps == [0, 1, 2]


def test_progress_goes_over_all_batches_and_more_than_were_promised_are_there():
    seen = []

    def progress(numbers, total, what):
        for number in numbers:
            seen.append((number, total, what))
            yield number

    pair = (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))

    class Wrong(list[Any]):
        def __len__(self):
            return 2

    found = list(with_progress(Wrong([pair] * 3), torch.nn.Linear(1, 1), progress, "look"))
    assert [b.number for b in found] == [0, 1, 2]
    assert seen == [(0, 2, "look"), (1, 2, "look")]


def test_loaders_of_training_are_refused():
    from senet.data import Augmentation

    model, progress = torch.nn.Linear(1, 1), lambda steps, total, what: steps
    preprocessing = Preprocessing(10, 8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    with pytest.raises(ValueError, match=r"source:test augments.*evaluation"):
        as_loader(model, open_loader(_data(), preprocessing, Augmentation(), batch=4), progress=progress)
    with pytest.raises(ValueError, match=r"shard of rank 0 of 2 processes.*all of the data"):
        as_loader(model, open_loader(_data(), preprocessing, batch=4, rank=0, world_size=2), progress=progress)


def test_recordings_of_loaders_are_the_same_however_they_are_read(tmp_path):
    model = senet.create_model("se_resnet20", num_classes=3)
    one, other = (record_gates(model, _loader((4,), memory=memory), sample=5) for memory in (True, False))
    for block, same in zip(one.blocks, other.blocks, strict=True):
        assert block.gates.images.tolist() == same.gates.images.tolist()
        assert np.abs(block.gates.mean - same.gates.mean).max() < 1e-6
    assert one.sample.indices.tolist() == other.sample.indices.tolist()
    assert flat(one.sample) == flat(other.sample)
    assert one.classes == NAMES
    assert one.data == "source:test"
    with pytest.raises(ValueError, match=r"classes differ.*'dog' and 'ant'"):
        record_gates(model, _loader(), classes=["dog", "bee", "cat"])


def test_a_data_set_is_opened_for_the_network():
    model = senet.create_model("se_resnet20", num_classes=3)
    gates = record_gates(model, _data(), sample=4, thumbnail=8)
    assert gates.images == 11
    assert gates.sample.thumbnails.shape == (4, 8, 8, 3)


def test_a_resumed_loader_gives_the_same_bits(tmp_path, monkeypatch):
    model, path = senet.create_model("se_resnet20", num_classes=3), tmp_path / "gates.safetensors"
    whole = record_gates(model, _loader(), sample=4)
    calls = []

    def stop(module, args):
        if args[0].is_meta or type(args[0]) is not torch.Tensor:
            return  # a run that only looks at shapes
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        record_gates(model, _loader(), sample=4, output=path, every=0)
    resumed = record_gates(model, _loader(), sample=4, output=path, resume=True)
    handle.remove()
    assert len(calls) == 4  # two from the start, and two to resume the first
    assert same_bits(resumed, whole)
