"""Shards that can only be read in order: each image once, the same batches however many read them, faults named."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from senet import DataError
from senet.data import ImageData, Loader, Preprocessing, check_data, open_data, open_loader
from senet.data.augmentation import Augmentation
from senet.data.loading.distributed import shard_batch
from senet.data.loading.stream_reader import streams_of
from senet.data.loading.streaming import StreamLoader
from senet.data.shards import remote
from senet.data.shards.dataset import index_spec
from tests.data.shard_sets import COUNTS, contents, foreign, png, serve, write_set
from tests.images import corrupt_jpeg, write_classes

PIXELS = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RANDOM = Augmentation(crop="pad", flip=True, padding=1)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.0)


def pipe(folder: Path, shards: str = "000000..000004", streams: int = 0) -> str:
    options = f"?index={folder}/train.index.json" + (f"&streams={streams}" if streams else "")
    return f"wds:pipe:cat {folder}/train-{{{shards}}}.tar{options}"


def stream(data: ImageData, augmentation: Augmentation | None = RANDOM, **options: object) -> StreamLoader:
    loader = open_loader(data, PIXELS, augmentation, **({"batch": 4, "memory_limit": 0} | options))  # type: ignore[arg-type]
    assert isinstance(loader, StreamLoader)
    return loader


def epoch_of(loader: Loader, number: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(loader.epoch(number, start))


def assert_same(one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]]) -> None:
    assert len(one) == len(two)
    for (pixels, labels), (others, their) in zip(one, two, strict=True):
        assert torch.equal(pixels, others)
        assert torch.equal(labels, their)


def images_in(batches: list[tuple[Tensor, Tensor]]) -> list[bytes]:
    return sorted(image.numpy().tobytes() for pixels, _ in batches for image in pixels)


def plain_images(data: ImageData) -> list[bytes]:
    return sorted(PIXELS.pixels(data[index][0]).numpy().tobytes() for index in range(len(data)))


def test_pipe_is_the_same_data(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    local, piped = open_data(f"wds:{folder}"), open_data(pipe(folder))
    assert piped.classes == local.classes
    assert piped.labels.tolist() == local.labels.tolist()
    assert contents(piped) == contents(local)
    assert [Path(piped.name(i)).name for i in range(23)] == [Path(local.name(i)).name for i in range(23)]
    assert piped.name(7).startswith(f"pipe:cat {folder}/train-000001.tar/")
    # Also backwards, and anew in each process.
    assert [piped[i][1] for i in (22, 3, 4, 0)] == [local[i][1] for i in (22, 3, 4, 0)]
    assert check_data(piped, workers=2).ok


def test_http(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    local = open_data(f"wds:{folder}")
    with serve(folder) as (address, asked):
        data = open_data(f"wds:{address}/train-{{000000..000004}}.tar")
        assert asked == ["train.index.json", "train.rows.npy"]
        assert contents(data) == contents(local)
        assert asked[2:] == [f"train-00000{n}.tar" for n in range(5)]
        some = open_data(f"wds:{address}/train-{{000001..000002}}.tar?x=1?index={address}/train.index.json")
        assert len(some) == 10
        loader = stream(data, workers=2)
        with_workers = epoch_of(loader)
    assert_same(with_workers, epoch_of(stream(open_data(pipe(folder)))))


def test_kept_in_memory_where_it_fits(tmp_path: Path) -> None:
    """Then batches are those of the streams: how much of it a process has does not decide the order."""
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder))
    for batch in (4, 8, 30):
        memory = open_loader(data, PIXELS, RANDOM, batch=batch, seed=3)
        streamed = stream(data, batch=batch, seed=3)
        assert memory.memory is not None
        assert memory.order == streamed.order == "streams=4"
        assert_same(epoch_of(memory, 2), epoch_of(streamed, 2))
        assert_same(epoch_of(memory, 2, 1), epoch_of(streamed, 2)[1:])
    assert open_loader(open_data(f"wds:{folder}"), PIXELS, RANDOM, batch=4).order == "random"
    assert open_loader(data, PIXELS, RANDOM, batch=4, balanced=True).order == "random"  # any image at any time


def test_in_memory_without_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path)
    path = folder / "train-000001.tar"
    content = bytearray(path.read_bytes())
    rows = np.load(folder / "train.rows.npy")
    content[int(rows["offset"][7]) + 20] ^= 1
    path.write_bytes(content)
    loader = open_loader(open_data(pipe(folder)), PIXELS, Augmentation(), batch=1, skip_bad=True)
    assert loader.order == "streams=4, of the images that can be read"
    found = images_in(epoch_of(loader))
    assert len(found) == 22
    assert set(found) < set(plain_images(source))


def test_two_processes_share_what_one_has_in_memory(tmp_path: Path) -> None:
    data = open_data(pipe(write_set(tmp_path)[1]))
    whole = epoch_of(open_loader(data, PIXELS, RANDOM, batch=8, seed=3))
    for limit in (10**9, 0):
        parts = [
            epoch_of(open_loader(data, PIXELS, RANDOM, batch=8, seed=3, memory_limit=limit, rank=rank, world_size=2))
            for rank in range(2)
        ]
        for (pixels, _), *shares in zip(whole, *parts, strict=True):
            assert images_in([(pixels, pixels)]) == images_in(shares)


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 5])
def test_each_image_once_an_epoch(tmp_path: Path, streams: int) -> None:
    # Shards of 5, 5, 5, 5 and 3 images, and stretches of neither.
    source, folder = write_set(tmp_path)
    data = open_data(pipe(folder, streams=streams))
    everything = Augmentation()
    whole = epoch_of(stream(data, everything, batch=1))
    assert images_in(whole) == plain_images(source)
    loader = stream(data, everything, batch=4)
    assert len(loader) == 5
    some = epoch_of(loader)
    assert [len(labels) for _, labels in some] == [4] * 5
    assert len(set(images_in(some))) == 20


def test_labels_belong_to_their_images(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path)
    expected = {PIXELS.pixels(source[i][0]).numpy().tobytes(): source[i][1] for i in range(23)}
    for pixels, labels in epoch_of(stream(open_data(pipe(folder)), Augmentation())):
        assert [expected[image.numpy().tobytes()] for image in pixels] == labels.tolist()


def test_order_changes_with_seed_and_epoch(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder))
    orders = [
        [
            image.numpy().tobytes()
            for pixels, _ in epoch_of(stream(data, Augmentation(), batch=1, seed=seed), number)
            for image in pixels
        ]
        for seed, number in ((0, 0), (0, 1), (1, 0))
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_augmentation_is_that_of_the_image(tmp_path: Path) -> None:
    """What an image undergoes is what it undergoes in random access, only the order differs."""
    _, folder = write_set(tmp_path)
    local = open_loader(open_data(f"wds:{folder}"), PIXELS, RANDOM, batch=1, seed=5)
    streamed = stream(open_data(pipe(folder)), batch=1, seed=5)
    assert images_in(epoch_of(local, 1)) == images_in(epoch_of(streamed, 1))
    assert images_in(epoch_of(local, 1)) != images_in(epoch_of(streamed, 2))


@pytest.mark.parametrize("batch", [3, 4, 8])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tmp_path: Path, batch: int, workers: int) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder))
    assert_same(epoch_of(stream(data, batch=batch), 1), epoch_of(stream(data, batch=batch, workers=workers), 1))


@pytest.mark.parametrize(("batch", "world", "streams"), [(8, 2, 4), (4, 4, 4), (6, 3, 3), (5, 2, 2), (8, 2, 2)])
def test_processes_share_each_batch(tmp_path: Path, batch: int, world: int, streams: int) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder, streams=streams))
    whole = epoch_of(stream(data, batch=batch, seed=2), 3)
    parts = [epoch_of(stream(data, batch=batch, seed=2, rank=rank, world_size=world), 3) for rank in range(world)]
    for number, (pixels, labels) in enumerate(whole):
        for rank in range(world):
            mine = torch.from_numpy(np.flatnonzero(streams_of(number * batch, len(labels), streams) % world == rank))
            if batch % streams == 0:  # as all other data are shared
                assert mine.tolist() == shard_batch(len(labels), rank, world).tolist()
                assert torch.equal(parts[rank][number][0], pixels[mine])
                assert torch.equal(parts[rank][number][1], labels[mine])
        assert images_in([part[number] for part in parts]) == images_in([whole[number]])


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_begun_in_its_middle(tmp_path: Path, workers: int) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder))
    loader = stream(data, batch=3, workers=workers, rank=1, world_size=2)
    whole = epoch_of(loader, 4)
    assert len(whole) == 7
    for start in (1, 4, 7):
        assert_same(epoch_of(loader, 4, start), whole[start:])


def test_shards_that_are_done_are_not_opened(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    with serve(folder) as (address, asked):
        loader = stream(open_data(f"wds:{address}/train-{{000000..000004}}.tar?streams=1"), batch=1)
        del asked[:]
        assert len(epoch_of(loader, 0, 22)) == 1
        assert len(asked) == 1


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (3, 1), (7, 0)])
def test_evaluation_in_order_and_exact(tmp_path: Path, world: int, workers: int) -> None:
    source, folder = write_set(tmp_path)
    local, data = open_data(f"wds:{folder}"), open_data(pipe(folder))
    expected = epoch_of(open_loader(local, PIXELS, batch=4))
    parts = [epoch_of(stream(data, None, workers=workers, rank=rank, world_size=world)) for rank in range(world)]
    for number, batch in enumerate(expected):
        filled = [part[number] for part in parts if len(part[number][1])]
        assert_same(filled, [batch])
    assert images_in([batch for part in parts for batch in part]) == plain_images(source)


def test_subset_and_other_classes(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder)).subset(np.arange(1, 23, 3)).with_classes(["emu", "dog", "cat"])
    for augmentation in (Augmentation(), None):
        batches = epoch_of(stream(data, augmentation, batch=1))
        assert images_in(batches) == plain_images(data)
    assert sorted(int(labels) for _, labels in batches) == sorted(data.labels.tolist())


def test_rank_reads_its_own_shards(tmp_path: Path) -> None:
    """Five shards for two processes: no more than the one on the boundary is read by both."""
    _, folder = write_set(tmp_path)
    seen = []
    for rank in range(2):
        with serve(folder) as (address, asked):
            loader = stream(open_data(f"wds:{address}/train-{{000000..000004}}.tar?streams=2"), rank=rank, world_size=2)
            del asked[:]
            epoch_of(loader)
            seen.append(asked)
    assert len(seen[0]) + len(seen[1]) <= 6
    assert len(set(seen[0]) & set(seen[1])) <= 1


def test_streams_that_processes_cannot_share(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    with pytest.raises(DataError, match=r"read as 4 streams, .* evenly among 3 processes: give streams=3, or another"):
        stream(open_data(pipe(folder)), rank=0, world_size=3)
    with pytest.raises(DataError, match=r"streams=6 is more than the 5 shards"):
        open_data(pipe(folder, streams=6))
    with pytest.raises(DataError, match=r"sampling=balanced reads images in any order.*copy the shards to the disk"):
        stream(open_data(pipe(folder)), balanced=True)


# Faults


def test_a_broken_stream_resumes(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    with serve(folder, {"train-000001.tar": 2}) as (address, asked):
        data = open_data(f"wds:{address}/train-{{000000..000004}}.tar")
        assert contents(data) == contents(open_data(f"wds:{folder}"))
        assert asked.count("train-000001.tar") == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_shard_that_breaks_off_for_good(tmp_path: Path, workers: int) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(pipe(folder))
    path = folder / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:9000])
    for augmentation in (RANDOM, None):
        with pytest.raises(
            DataError, match=r"train-000002.tar breaks off after \d of 5 images .*; it was opened 4 times"
        ):
            epoch_of(stream(data, augmentation, batch=1, workers=workers, skip_bad=True))


def test_shard_that_ends_between_images(tmp_path: Path) -> None:
    """Python takes such an archive for a whole one; the index knows better."""
    _, folder = write_set(tmp_path, per=12)
    data = open_data(pipe(folder, "000000..000001"))
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[: 2 * 2048])
    with pytest.raises(DataError, match=r"train-000000.tar breaks off after 1 of 12 images \(at byte 4,096 it"):
        epoch_of(stream(data, None))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cat {folder}/nowhere-{{000000..000004}}.tar 2>/dev/null", r"breaks off after 0 of 5 images"),
        ("exit 3; : {{000000..000004}}", r"breaks off after 0 of 5 images"),
        ("cat {folder}/train-000001.tar; : {{0..4}}", r"does not match the index: image 0 is named"),
        ("cat {folder}/train-000000.tar; : {{0..4}}", r"does not match the index: image 0 is named"),
    ],
)
def test_commands_that_fail(tmp_path: Path, command: str, message: str) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(f"wds:pipe:{command.format(folder=folder)}?index={folder}/train.index.json")
    with pytest.raises(DataError, match=message):
        epoch_of(stream(data, None))


def test_shard_given_twice(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    with pytest.raises(DataError, match=r"the shard train-000001.tar is given twice"):
        open_data(pipe(folder, "000001,000001"))


def test_address_without_shards(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    with serve(folder) as (address, _):
        with pytest.raises(DataError, match=r"cannot read http.*/other.index.json: curl ended with exit status 22"):
            open_data(f"wds:{address}/other-{{000000..000004}}.tar")
        (folder / "train-000003.tar").unlink()
        data = open_data(f"wds:{address}/train-{{000000..000004}}.tar")
        with pytest.raises(DataError, match=r"train-000003.tar breaks off after 0 of 5 images"):
            epoch_of(stream(data, None))
    with pytest.raises(DataError, match=r"curl ended with exit status 7"):
        open_data(f"wds:{address}/train-{{000000..000004}}.tar")


def test_no_index(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    with pytest.raises(
        DataError, match=r"has no index of its images and classes: give index=FILE .*senet shard SPEC --index-only"
    ):
        open_data(f"wds:pipe:cat {folder}/train-{{000000..000004}}.tar")


@pytest.mark.parametrize("augmentation", [RANDOM, None])
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_image(tmp_path: Path, augmentation: Augmentation | None, workers: int) -> None:
    _, folder = write_set(tmp_path, keep_order=True)
    data = open_data(pipe(folder))
    path = folder / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"train-000001.tar/00000005.png: its checksum differs from the index; leave .* --skip-bad"
    ):
        epoch_of(stream(data, augmentation, batch=1, workers=workers))
    loader = stream(data, augmentation, batch=1, workers=workers, skip_bad=True)
    assert sum(len(labels) for _, labels in epoch_of(loader)) == 22
    assert loader.skipped == [data.name(5)]


def test_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    samples = {str(n): {"png": png(n), "cls": b"a"} for n in range(4)} | {"x": {"jpg": corrupt_jpeg(), "cls": b"b"}}
    foreign(tmp_path / "x-0.tar", samples)
    index_spec(f"wds:{tmp_path}/x-0.tar", progress=lambda steps, total, what: steps).write(tmp_path)
    data = open_data(f"wds:pipe:cat {tmp_path}/x-0.tar?index={tmp_path}/x.index.json")
    with pytest.raises(DataError, match=r"x-0.tar/x.jpg: .*leave such images out with --skip-bad"):
        epoch_of(stream(data, batch=5))
    loader = stream(data, batch=5, skip_bad=True)
    assert [len(labels) for _, labels in epoch_of(loader)] == [4]


def test_command_is_ended_with_the_stream(tmp_path: Path) -> None:
    """One that would write for ever, after what is wanted of it."""
    _, folder = write_set(tmp_path)
    spec = f"wds:pipe:cat {folder}/train-{{000000..000004}}.tar; sleep 60; : ?index={folder}/train.index.json"
    before = time.monotonic()
    assert len(epoch_of(stream(open_data(spec), batch=1))) == 23
    assert time.monotonic() - before < 30


# Shards of others


def test_index_of_foreign_shards(tmp_path: Path) -> None:
    for number in range(2):
        samples = {
            f"{number}/{n}": {"png": png(10 * number + n), "cls": b"%d" % (n % 2), "txt": b"-"} for n in range(3)
        }
        foreign(tmp_path / f"x-{number}.tar", samples | {"nothing": {"txt": b"no image"}})
    (tmp_path / "names").write_text("ant\nbee\n")
    shards = f"pipe:cat {tmp_path}/x-{{0..1}}.tar"
    indices = [
        index_spec(f"wds:{spec}?classes={tmp_path}/names", progress=lambda steps, total, what: steps)
        for spec in (shards, f"{tmp_path}/x-{{0..1}}.tar")
    ]
    assert indices[0].rows.tolist() == indices[1].rows.tolist()
    assert [shard.file for shard in indices[0].shards] == ["x-0.tar", "x-1.tar"]
    indices[0].write(tmp_path)
    data = open_data(f"wds:{shards}?index={tmp_path}/x.index.json")
    assert contents(data) == contents(open_data(f"wds:{tmp_path}/x-{{0..1}}.tar?classes={tmp_path}/names"))
    assert images_in(epoch_of(stream(data, Augmentation(), batch=1))) == plain_images(data)


def test_command_does_not_get_into_an_index(tmp_path: Path) -> None:
    foreign(tmp_path / "x-0.tar", {"1": {"png": png(1), "cls": b"a"}})
    index = index_spec(f"wds:pipe:cat {tmp_path}/x-0.tar | cat", progress=lambda steps, total, what: steps)
    assert [shard.file for shard in index.shards] == ["cat"]
    index = index_spec(f"wds:pipe:cat < {tmp_path}/x-0.tar;", progress=lambda steps, total, what: steps)
    assert [shard.file for shard in index.shards] == ["shard-000000"]


def test_all_of_it(tmp_path: Path) -> None:
    write_classes(tmp_path, COUNTS)
    with pytest.raises(DataError, match=r"invalid spec .*: expected shards to index, wds:"):
        index_spec(str(tmp_path), progress=lambda steps, total, what: steps)
