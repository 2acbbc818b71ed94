"""Batches made on a device are those of the CPU, bit for bit; making them never waits for the device."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from senet.data import Augmentation, ImageData, Loader, Preprocessing, open_data, open_loader
from senet.data.augmentation import crop_and_flip, padding_colour
from senet.data.loading import device_batches, factory
from senet.data.loading import loader as loader_module
from senet.data.loading.device_batches import (
    DEVICE_SHARE,
    DeviceData,
    batch_device,
    gather_batch,
    keep_on_device,
    prefetched,
)
from senet.data.loading.streaming import StreamLoader
from senet.utils.errors import DataError
from tests.data.shard_sets import write_set
from tests.helpers import noting
from tests.images import corrupt_jpeg, picture, write_classes
from tests.syncs import HostSyncError, no_host_sync

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=needs_gpu)]
PREPROCESSING = Preprocessing(9, 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


class Pictures:
    def read(self, index: int) -> Any:
        return picture(index, 10, 12)

    def name(self, index: int) -> str:
        return f"picture {index}"


def pictures(images: int, classes: int = 0) -> ImageData:
    labels = np.arange(images) % (classes or images)
    return ImageData("pictures", Pictures(), labels, [str(n) for n in range(labels.max() + 1)])


def assert_same(found: Iterable[tuple[Tensor, Tensor]], expected: Iterable[tuple[Tensor, Tensor]]) -> None:
    """The same pixels and labels to the bit, whatever device they are on."""
    batches = list(found)
    wanted = list(expected)
    assert len(batches) == len(wanted)
    for (pixels, labels), (others, their) in zip(batches, wanted, strict=True):
        assert torch.equal(pixels.cpu(), others)
        assert torch.equal(labels.cpu(), their)
        assert (pixels.dtype, labels.dtype) == (others.dtype, their.dtype)


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=60)
@given(data=st.data(), padding=st.integers(0, 5), channels=st.sampled_from([1, 3]), images=st.integers(1, 6))
def test_gather_is_crop_and_flip(
    data: st.DataObject, padding: int, channels: int, images: int, device: torch.device
) -> None:
    height, width, count = (data.draw(st.integers(1, 7)) for _ in range(3))
    seed = data.draw(st.integers(0, 2**32))
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (images, channels, height, width), dtype=torch.uint8, generator=generator)
    labels = torch.randint(1000, (images,), generator=generator)
    indices = torch.randint(images, (count,), generator=generator)
    offsets = torch.randint(2 * padding + 1, (count, 2), generator=generator)
    flips = torch.rand(count, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    fill = [255 * value for value in (0.485, 0.456, 0.406)[:channels]]
    expected = crop_and_flip(pixels[indices], offsets, flips, padding, fill)
    found, classes = gather_batch(
        pixels.permute(0, 2, 3, 1).contiguous().to(device),
        labels.to(device),
        indices.to(device),
        offsets.to(device),
        flips.to(device) if flips.any() or data.draw(st.booleans()) else None,
        padding,
        padding_colour(fill).to(device),
    )
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(classes.cpu(), labels[indices])
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=40)
@given(
    images=st.integers(1, 14),
    batch=st.integers(1, 16),
    crop=st.sampled_from(["pad", "none", ""]),
    flip=st.booleans(),
    padding=st.integers(0, 4),
    balanced=st.booleans(),
    part=st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 2**40),
    start=st.integers(0, 4),
)
@example(images=10, batch=4, crop="pad", flip=True, padding=2, balanced=True, part=(0, 1), epoch=1, seed=3, start=1)
@example(images=12, batch=6, crop="pad", flip=False, padding=3, balanced=True, part=(1, 2), epoch=2, seed=3, start=0)
def test_loader_gives_the_batches_of_the_host(
    images: int,
    batch: int,
    crop: str,
    flip: bool,
    padding: int,
    balanced: bool,
    part: tuple[int, int],
    epoch: int,
    seed: int,
    start: int,
    device: torch.device,
) -> None:
    augmentation = Augmentation(crop, flip, padding) if crop else None
    options: dict[str, Any] = {
        "batch": batch,
        "seed": seed,
        "rank": part[0],
        "world_size": part[1],
        "balanced": balanced and bool(crop),
    }
    host = open_loader(pictures(images, 2), PREPROCESSING, augmentation, **options)
    there = open_loader(pictures(images, 2), PREPROCESSING, augmentation, **options, device=device)
    assert there.on_device is not None
    assert_same(there.epoch(epoch, start), host.epoch(epoch, start))
    assert len(there) == len(host)


@pytest.mark.parametrize("device", DEVICES)
def test_normalized_values_are_those_of_the_host(device: torch.device) -> None:
    loaders = [
        open_loader(pictures(8), PREPROCESSING, Augmentation("pad", True, 2), batch=4, device=where)
        for where in (None, device)
    ]
    for (pixels, _), (others, _) in zip(*(loader.epoch(1) for loader in loaders), strict=True):
        expected, found = PREPROCESSING.normalize(pixels), PREPROCESSING.normalize(others)
        assert found.is_contiguous(memory_format=torch.channels_last)
        ulp = torch.nextafter(expected.abs(), torch.tensor(torch.inf)) - expected.abs()
        assert bool(((found.cpu() - expected).abs() <= ulp).all())
        assert device != CPU or torch.equal(found, expected)


@pytest.mark.parametrize("crop", ["pad", "none"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_step_of_the_device_does_not_wait(crop: str, flip: bool) -> None:
    """Everything between an epoch's upload and the network's input."""
    loader = open_loader(pictures(9), PREPROCESSING, Augmentation(crop, flip, 3), batch=3, device=CPU)
    assert loader.on_device is not None
    crops = list(loader.crops(2))
    PREPROCESSING.normalize(loader.on_device.batch(crops[0])[0])
    static = loader.on_device.empty_crops(3)
    with no_host_sync():
        found = []
        for now in crops:
            static.copy_(now)
            pixels, labels = loader.on_device.batch(static)
            found.append((pixels, labels))
            PREPROCESSING.normalize(pixels)
    assert_same(found, open_loader(pictures(9), PREPROCESSING, Augmentation(crop, flip, 3), batch=3).epoch(2))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2])
def test_a_step_on_cuda_copies_nothing_synchronously(flip: bool, padding: int) -> None:
    with FakeTensorMode():
        pixels = torch.empty(10, 8, 8, 3, dtype=torch.uint8, device="cuda")
        labels, fill = (
            torch.empty(10, dtype=torch.long, device="cuda"),
            torch.empty(3, dtype=torch.uint8, device="cuda"),
        )
        data = DeviceData(pixels, labels, padding, fill, flip)
        with no_host_sync():
            images, classes = data.batch(torch.empty(4, 4, dtype=torch.long, device="cuda"))
        assert (images.device.type, classes.device.type) == ("cuda", "cuda")
        assert images.shape == (4, 3, 8, 8)


def test_the_crops_of_the_host_would_wait() -> None:
    """So that the tests above can fail."""
    pixels, offsets = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.long)
    with no_host_sync(), pytest.raises(HostSyncError):
        crop_and_flip(pixels, offsets, torch.ones(2, dtype=torch.bool), 1, [0.0, 0.0, 0.0])


def test_an_epoch_is_copied_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[tuple[int, ...]] = []
    plain = device_batches._copied
    monkeypatch.setattr(device_batches, "_copied", noting(copies, lambda t, device: tuple(t.shape), plain))
    loader = open_loader(pictures(9), PREPROCESSING, Augmentation("pad", True, 2), batch=3, device=CPU)
    assert len(list(loader.epoch(0))) == 3
    assert copies == [(9, 4)]
    assert [len(crops) for crops in loader.crops(1, 2)] == [3]
    assert copies == [(9, 4), (3, 4)]
    assert list(loader.crops(1, 3)) == []
    assert len(copies) == 2


def test_the_device_by_name() -> None:
    loader = open_loader(pictures(3), PREPROCESSING, batch=2, device="cpu")
    assert loader.device == CPU
    assert loader.on_device is not None
    assert_same(loader.epoch(), open_loader(pictures(3), PREPROCESSING, batch=2).epoch())


def test_crops_of_data_that_are_not_on_a_device() -> None:
    loader = open_loader(pictures(3), PREPROCESSING, batch=1)
    with pytest.raises(ValueError, match=r"the pixels of pictures are not kept on a device; take batches from epoch"):
        loader.crops()


@pytest.mark.parametrize(
    "augmentation", [Augmentation("area", True), Augmentation("pad", True, 2, "rand-m9-mstd0.5-inc1")]
)
def test_areas_and_randaugment_stay_on_the_host(augmentation: Augmentation) -> None:
    options: dict[str, Any] = {"batch": 3, "seed": 1}
    there = open_loader(pictures(7), PREPROCESSING, augmentation, **options, device=CPU)
    assert there.on_device is None
    assert there.device == CPU
    assert_same(there.epoch(2), open_loader(pictures(7), PREPROCESSING, augmentation, **options).epoch(2))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")
def test_images_that_are_not_kept_are_sent(workers: int) -> None:
    options: dict[str, Any] = {"batch": 3, "memory_limit": 0}
    kind = Augmentation("pad", True, 2)
    there = open_loader(pictures(10), PREPROCESSING, kind, **options, workers=workers, device=CPU)
    assert there.on_device is None
    host = open_loader(pictures(10), PREPROCESSING, kind, **options)
    assert_same(there.epoch(1), host.epoch(1))
    assert_same(there.epoch(1, 2), host.epoch(1, 2))


@pytest.mark.parametrize("limit", [10**9, 0])
def test_pixels_in_memory_without_room_on_the_device_are_sent(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    sent: list[torch.device] = []
    monkeypatch.setattr(factory, "keep_on_device", lambda *_: None)
    monkeypatch.setattr(
        loader_module, "prefetched", noting(sent, lambda batches, device: device, lambda batches, _: batches)
    )
    there = open_loader(pictures(5), PREPROCESSING, batch=3, memory_limit=limit, device=CPU)
    assert_same(there.epoch(), open_loader(pictures(5), PREPROCESSING, batch=3).epoch())
    assert sent == [CPU]


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"a": 4, "b": 4})
    (root / "a" / "2.jpg").write_bytes(corrupt_jpeg())
    data = open_data(str(root))
    for kind in (None, Augmentation("pad", True, 2)):
        options: dict[str, Any] = {"batch": 3, "skip_bad": True}
        host, there = (open_loader(data, PREPROCESSING, kind, **options, device=where) for where in (None, CPU))
        assert_same(there.epoch(1), host.epoch(1))
        assert there.skipped == host.skipped
        assert len(there.skipped) == 1
        assert there.name_of(1, 1) == host.name_of(1, 1)


@pytest.mark.parametrize("limit", [10**9, 0])
@pytest.mark.parametrize("kind", [None, Augmentation("pad", True, 1)])
def test_shards_in_their_own_order(tmp_path: Path, limit: int, kind: Augmentation | None) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(f"wds:pipe:cat {folder}/train-{{000000..000004}}.tar?index={folder}/train.index.json")
    options: dict[str, Any] = {"batch": 4, "seed": 3, "memory_limit": limit}
    host, there = (open_loader(data, PREPROCESSING, kind, **options, device=where) for where in (None, CPU))
    assert isinstance(there, StreamLoader)
    assert (there.on_device is not None) == (limit > 0)
    for start in (0, 2):
        assert_same(there.epoch(2, start), host.epoch(2, start))


class Cuda:
    """A GPU's memory as far as it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, full: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
        self.made: list[tuple[int, ...]] = []
        plain = torch.empty

        def empty(*shape: Any, device: Any = None, **options: Any) -> Tensor:
            if device == torch.device("cuda"):
                self.made.append(shape)
                if full:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                device = CPU
            return plain(*shape, device=device, **options)

        monkeypatch.setattr(torch, "empty", empty)
        to = Tensor.to
        monkeypatch.setattr(
            Tensor, "to", lambda t, *a, **o: to(t, *(CPU if x == torch.device("cuda") else x for x in a), **o)
        )


# Pixels and labels, and two epochs' crops.
NEEDED = 10 * (3 * 8 * 8 + 8 + 64)


@pytest.mark.parametrize(("free", "fits"), [(NEEDED / DEVICE_SHARE, True), (NEEDED / DEVICE_SHARE - 4, False)])
def test_a_share_of_the_free_memory_is_taken(monkeypatch: pytest.MonkeyPatch, free: float, fits: bool) -> None:
    cuda = Cuda(monkeypatch, int(free))
    pixels, labels = torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.zeros(10, dtype=torch.long)
    found = keep_on_device(pixels, labels, PREPROCESSING, None, torch.device("cuda"))
    assert (found is not None) == fits
    assert cuda.made == [(10, 8, 8, 3)] * fits
    assert found is None or found.nbytes == 10 * (3 * 8 * 8 + 8)


def test_memory_that_is_gone_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, 10**9, full=True)
    pixels, labels = torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.zeros(10, dtype=torch.long)
    assert keep_on_device(pixels, labels, PREPROCESSING, None, torch.device("cuda")) is None


def test_data_go_to_the_device_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_batches, "_CHUNK", 3 * 8 * 8 * 4)
    host, there = (open_loader(pictures(10), PREPROCESSING, batch=4, device=where) for where in (None, CPU))
    assert_same(there.epoch(), host.epoch())


@pytest.mark.parametrize(("device", "there"), [("cpu", False), ("mps", False), ("cuda", True), ("cuda:1", True)])
def test_devices_that_make_batches(device: str, there: bool) -> None:
    assert batch_device(torch.device(device)) == (torch.device(device) if there else None)


class Events(list[str]):
    """What a fake of torch.cuda's streams was asked for, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        events = self

        class Stream:
            def __init__(self, name: Any) -> None:
                self.name = name if isinstance(name, str) else "side"
                self.copies = 0

            def record_event(self) -> str:
                self.copies += 1
                events.append(f"{self.name} records {self.copies}")
                return f"{self.name} {self.copies}"

            def wait_event(self, event: str) -> None:
                events.append(f"{self.name} waits for {event}")

        self.on = "main"

        @contextlib.contextmanager
        def stream(of: Stream) -> Iterator[None]:
            self.on = of.name
            try:
                yield
            finally:
                self.on = "main"

        def pin_memory(tensor: Tensor) -> Tensor:
            return tensor.clone()

        def to(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
            assert device == torch.device("cuda")
            if tensor.ndim > 1:
                events.append(f"copy {int(tensor.flatten()[0])} on {self.on}{'' if non_blocking else ', waiting'}")
            return tensor

        def record_stream(tensor: Tensor, of: Stream) -> None:
            if tensor.ndim > 1:
                events.append(f"{int(tensor.flatten()[0])} is of {of.name}")

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self.on))
        monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
        monkeypatch.setattr(Tensor, "to", to)
        monkeypatch.setattr(Tensor, "record_stream", record_stream)


def numbered(*numbers: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.full((2, 3, 1, 1), number, dtype=torch.uint8), torch.tensor([number, 0])) for number in numbers]


def test_the_next_batch_is_copied_before_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events(monkeypatch)
    for pixels, _ in prefetched(numbered(1, 2, 3), torch.device("cuda")):
        assert events.on == "main"
        events.append(f"step {int(pixels.flatten()[0])}")
    assert events == [
        *("copy 1 on side", "side records 1"),
        *("copy 2 on side", "side records 2", "main waits for side 1", "1 is of main", "step 1"),
        *("copy 3 on side", "side records 3", "main waits for side 2", "2 is of main", "step 2"),
        *("main waits for side 3", "3 is of main", "step 3"),
    ]


def test_empty_batches_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images of which none can be read; nothing of theirs is pinned."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pytest.fail("nothing to pin"))
    empty = (torch.empty(0), torch.empty(0, dtype=torch.long))
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "to", lambda tensor, device, non_blocking: tensor)
        assert len(device_batches._copied(empty[0], torch.device("cuda"))) == 0
    assert_same(prefetched([empty, *numbered(4)], CPU), [empty, *numbered(4)])


def test_an_error_of_reading_comes_after_the_batches_before_it() -> None:
    def source() -> Iterator[tuple[Tensor, Tensor]]:
        yield from numbered(1, 2)
        raise DataError("cannot read the image 3")

    batches = prefetched(source(), CPU)
    assert [int(next(batches)[1][0]) for _ in range(2)] == [1, 2]
    with pytest.raises(DataError, match="cannot read the image 3"):
        next(batches)
    assert list(prefetched([], CPU)) == []


@needs_gpu
def test_prefetched_batches_on_a_gpu() -> None:
    data, device = pictures(40), torch.device("cuda")
    host, there = (
        open_loader(data, PREPROCESSING, Augmentation("pad", True, 2), batch=4, memory_limit=0, device=where)
        for where in (None, device)
    )
    expected = list(host.epoch(1))
    for _ in range(3):  # memory is used again
        total = torch.zeros((), device=device)
        for (pixels, labels), (others, their) in zip(there.epoch(1), expected, strict=True):
            torch.cuda._sleep(10**6)  # the step reads the batch late
            total += (pixels != others.to(device)).sum() + (labels != their.to(device)).sum()
        assert float(total) == 0


@needs_gpu
def test_batches_in_a_cuda_graph() -> None:
    data, device = pictures(12), torch.device("cuda")
    options: dict[str, Any] = {"batch": 4, "seed": 2}
    kind = Augmentation("pad", True, 2)
    loader: Loader = open_loader(data, PREPROCESSING, kind, **options, device=device)
    assert loader.on_device is not None
    static, scale = loader.on_device.empty_crops(4), PREPROCESSING.scale(torch.device("cuda", 0))
    PREPROCESSING.normalize(loader.on_device.batch(static)[0], scale)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pixels, labels = loader.on_device.batch(static)
        images = PREPROCESSING.normalize(pixels, scale)
    found = []
    for crops in loader.crops(3):
        static.copy_(crops)
        graph.replay()
        found.append((pixels.clone(), labels.clone()))
        assert torch.equal(images, PREPROCESSING.normalize(pixels))
    assert_same(found, open_loader(data, PREPROCESSING, kind, **options).epoch(3))
