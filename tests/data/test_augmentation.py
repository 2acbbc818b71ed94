import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import hflip, pil_to_tensor, to_pil_image

from senet.data import Augmentation, Preprocessing
from senet.data.augmentation import crop_and_flip, draw, seed_of
from tests.images import picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(40, 30), (30, 40), (33, 33), (200, 7), (5, 3)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": "pat"}, "unknown crop 'pat'; did you mean 'pad'. Choose from: pad, area, none."),
        ({"padding": -1}, "padding must be 0 pixels or more, got -1"),
        ({"randaugment": "foo"}, "randaugment must be timm's name of a policy, such as 'rand-m9-.*' .*, got 'foo'"),
        ({"randaugment": "rand-m9-x3"}, "randaugment must be .* got 'rand-m9-x3'"),
    ],
)
def test_augmentation_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)  # type: ignore[arg-type]


def one_by_one(pixels: Tensor, offsets: Tensor, flips: Tensor, padding: int, fill: list[float]) -> Iterator[Tensor]:
    """Each image of a batch, by PIL."""
    size = pixels.shape[-1]
    for image, (row, column), flip in zip(pixels, offsets.tolist(), flips.tolist(), strict=True):
        channels = []
        for plane, colour in zip(image, fill, strict=True):
            wide = Image.new("L", (size + 2 * padding, size + 2 * padding), round(colour))
            wide.paste(to_pil_image(plane[None]), (padding, padding))
            cut = wide.crop((column, row, column + size, row + size))
            channels.append(torch.from_numpy(np.array(hflip(cut) if flip else cut)))
        yield torch.stack(channels)


@settings(deadline=None)
@given(st.data(), st.integers(0, 4), st.integers(1, 6), st.sampled_from([1, 3]), st.integers(0, 5))
def test_crop_and_flip_is_that_of_each_image(
    data: st.DataObject, images: int, size: int, channels: int, padding: int
) -> None:
    span = st.integers(0, 2 * padding)
    offsets = torch.tensor(data.draw(st.lists(st.tuples(span, span), min_size=images, max_size=images)))
    flips = torch.tensor(data.draw(st.lists(st.booleans(), min_size=images, max_size=images)), dtype=torch.bool)
    fill = data.draw(st.lists(st.floats(0, 255), min_size=channels, max_size=channels))
    pixels = torch.randint(256, (images, channels, size, size), dtype=torch.uint8)
    offsets = offsets.reshape(images, 2).long()
    actual = crop_and_flip(pixels, offsets, flips, padding, fill)
    expected = list(one_by_one(pixels, offsets, flips, padding, fill))
    assert torch.equal(actual, torch.stack(expected) if expected else pixels)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(0, 10**6))
def test_draws_of_an_epoch(images: int, seed: int, epoch: int) -> None:
    draws = draw(Augmentation("pad", True, 3), seed, epoch, images)
    assert sorted(draws.order.tolist()) == list(range(images))
    assert draws.offsets.shape == (images, 2)
    assert set(draws.offsets.unique().tolist()) <= set(range(7))
    assert draws.flips.shape == (images,)


def test_draws_cover_what_they_may() -> None:
    draws = draw(Augmentation("pad", True, 2), 0, 0, 2000)
    counts = torch.bincount(5 * draws.offsets[:, 0] + draws.offsets[:, 1], minlength=25)
    # 80 of each are expected, with a deviation of 8.8.
    assert counts.min() > 40
    assert counts.max() < 120
    assert 900 < int(draws.flips.sum()) < 1100
    still = draw(Augmentation("none", False, 2), 0, 0, 100)
    assert not still.offsets.any()
    assert not still.flips.any()


def test_draws_differ_by_seed_and_epoch() -> None:
    orders = [tuple(draw(Augmentation(), seed, epoch, 20).order.tolist()) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_seeds_are_mixed_and_fit_a_generator() -> None:
    # (1, 0) and (0, 1), and the epochs of neighbouring seeds, have nothing in common.
    seeds = [seed_of(*numbers) for numbers in np.ndindex(20, 20, 3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds]).mean(0)
    assert np.all((bits > 0.4) & (bits < 0.6))


def test_an_order_is_pytorchs_permutation_by_numpys_seed() -> None:
    """Runs that were saved continue with the same images, so the order must not change between versions."""
    seed = int(np.random.SeedSequence((3, 7)).generate_state(1, np.uint64)[0] >> 1)
    expected = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draw(Augmentation(), 3, 7, 20).order, expected)


def test_area_has_the_aspects_of_an_input_that_is_not_square() -> None:
    """Of an input twice as wide as high, areas are 3/4 to 4/3 of that: 1.5 to 2.67 times as wide as high."""
    image, preprocessing = picture(0, 40, 60), Preprocessing((12, 24), (12, 24), MEAN, STD, "bicubic")
    reference = transforms.RandomResizedCrop(
        (12, 24), ratio=(1.5, 8 / 3), interpolation=transforms.InterpolationMode.BICUBIC
    )
    for seed in range(8):
        torch.manual_seed(seed)
        expected = transforms.functional.pil_to_tensor(reference(image))
        assert torch.equal(Augmentation("area").area(image, preprocessing, seed), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_area_is_torchvisions(channels: int, flip: bool) -> None:
    image = picture(0, 40, 30)
    preprocessing = Preprocessing(20, 16, MEAN[:channels], STD[:channels], "bicubic")
    reference = transforms.Compose(
        [
            transforms.RandomResizedCrop(16, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(0.5 * flip),
            transforms.Grayscale(channels) if channels == 1 else transforms.Lambda(lambda x: x),
            transforms.PILToTensor(),
        ]
    )
    areas = [Augmentation("area", flip).area(image, preprocessing, seed) for seed in range(8)]
    for seed, area in enumerate(areas):
        torch.manual_seed(seed)
        assert torch.equal(area, reference(image))
    assert len({area.numpy().tobytes() for area in areas}) == 8


def test_area_leaves_other_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    # It seeds the GPU's generators too, which nothing would restore.
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    before = torch.get_rng_state()
    Augmentation("area").area(picture(0), Preprocessing(8, 8, MEAN, STD), 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The checker of annotations draws from Python's generator which items of a sequence it looks at."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


POLICY = "rand-m9-n3-mstd0.5-inc1"


def pixels_of(seed: int, channels: int = 3) -> Tensor:
    return Preprocessing(16, 16, MEAN[:channels], STD[:channels]).pixels(picture(seed, 16, 16))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("unchecked")
def test_randaugment_is_timms(channels: int) -> None:
    # 0.485, 0.456 and 0.406 of 255: the colour of what a shift uncovers.
    colour: object = (124, 116, 104) if channels == 3 else 124
    reference = rand_augment_transform(POLICY, {"img_mean": colour})
    outcomes = set()
    for seed in (*range(12), 2**32 + 1, 2**63 - 1):
        pixels = pixels_of(1, channels)
        actual = Augmentation(randaugment=POLICY).randomise(pixels, MEAN[:channels], seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        assert torch.equal(actual, pil_to_tensor(reference(to_pil_image(pixels))))
        assert actual.shape == (channels, 16, 16)
        assert torch.equal(pixels, pixels_of(1, channels))
        outcomes.add(actual.numpy().tobytes())
    assert len(outcomes) > 8


@pytest.mark.usefixtures("unchecked")
def test_randaugment_leaves_other_random_numbers() -> None:
    random.seed(3)
    np.random.seed(3)
    before = [repr(random.getstate()), repr(np.random.get_state()), str(torch.get_rng_state().tolist())]
    for seed in range(5):
        Augmentation(randaugment=POLICY).randomise(pixels_of(0), MEAN, seed)
    assert [repr(random.getstate()), repr(np.random.get_state()), str(torch.get_rng_state().tolist())] == before


@pytest.mark.usefixtures("unchecked")
def test_randaugment_leaves_other_random_numbers_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        random.random()
        np.random.rand()
        raise MemoryError

    monkeypatch.setattr("senet.data.augmentation._policy", lambda *args: fail)
    augmentation = Augmentation(randaugment=POLICY)
    before = [repr(random.getstate()), repr(np.random.get_state())]
    with pytest.raises(MemoryError):
        augmentation.randomise(pixels_of(0), MEAN, 7)
    assert [repr(random.getstate()), repr(np.random.get_state())] == before


@pytest.mark.parametrize(
    "policy", ["rand", "rand-m9", "rand-m9-mstd0.5", "rand-n1-p1", "rand-m7-mstd0.5-inc1", "rand-m2", "rand-m10-inc1"]
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("unchecked")
def test_policies_of_timm_run_on_grey_images_and_on_colour(
    policy: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As timm's, but for Posterize with no bits at all: newer versions of Pillow raise, and one bit is kept."""
    augmentation = Augmentation(randaugment=policy)
    pixels, mean = pixels_of(0, channels), MEAN[:channels]
    outcomes = [augmentation.randomise(pixels, mean, seed) for seed in range(60)]
    posterize, asked = ImageOps.posterize, set()

    def keep_one_bit(image: Image.Image, bits: int) -> Image.Image:
        asked.add(bits)
        return posterize(image, max(bits, 1))

    monkeypatch.setattr(ImageOps, "posterize", keep_one_bit)
    reference = rand_augment_transform(policy, {"img_mean": (124, 116, 104) if channels == 3 else 124})
    for seed, outcome in enumerate(outcomes):
        random.seed(seed)
        np.random.seed(seed)
        expected = pil_to_tensor(reference(to_pil_image(pixels)))
        assert expected.shape == (channels, 16, 16)
        assert torch.equal(outcome, expected), seed
    if policy in ("rand-m2", "rand-m10-inc1"):
        assert asked == {0}
