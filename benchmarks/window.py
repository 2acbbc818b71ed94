"""Whether windows help: denoise photographs with a network trained on crops, by whole maps and by windows.

Run as `python benchmarks/window.py [--steps N] [--seeds N]`. Three photographs that scikit-learn and matplotlib bring
along; two train the network, on crops of 32x32, and the third is the test. SE gates each of four residual units.
"""

import argparse
import copy
import json
import math
import os
from collections.abc import Iterator
from typing import Any

import matplotlib.cbook
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

import senet

CROP, CHANNELS, UNITS, BATCH = 32, 16, 4, 16
# Standard deviations of the noise, on pixels from 0 to 255: uniform in training, and those of the test.
NOISE, LEVELS = (5.0, 50.0), (15, 25, 50)


class Unit(nn.Module):
    """A residual unit without normalization, as restoration networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x + self.conv2(torch.relu(self.conv1(x)))  # type: ignore[no-any-return]


class Denoiser(nn.Sequential):
    """It predicts the noise."""

    def __init__(self) -> None:
        units = [Unit() for _ in range(UNITS)]
        super().__init__(nn.Conv2d(3, CHANNELS, 3, padding=1), *units, nn.Conv2d(CHANNELS, 3, 3, padding=1))


def photographs() -> dict[str, Tensor]:
    """Three photographs, (3, H, W) in 0 to 1."""
    china, flower = load_sample_images().images
    opened: Any = matplotlib.cbook.get_sample_data("grace_hopper.jpg")
    with opened as file:
        hopper = np.asarray(Image.open(file))
    named = {"china": china, "flower": flower, "hopper": hopper}
    return {name: torch.from_numpy(np.array(image)).movedim(2, 0) / 255 for name, image in named.items()}


def crops(images: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Random crops of random images, (count, 3, CROP, CROP)."""
    found = []
    for _ in range(count):
        image = images[int(torch.randint(len(images), (), generator=generator))]
        top, left = (int(torch.randint(size - CROP + 1, (), generator=generator)) for size in image.shape[1:])
        found.append(image[:, top : top + CROP, left : left + CROP])
    return torch.stack(found)


def train(images: list[Tensor], steps: int, seed: int) -> nn.Module:
    """Train a denoiser on noisy crops."""
    torch.manual_seed(seed)
    model = senet.insert(Denoiser(), at=[f"{n}.conv2" for n in range(1, UNITS + 1)], reduction=4)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        x = crops(images, BATCH, generator)
        deviation = (NOISE[0] + (NOISE[1] - NOISE[0]) * torch.rand(BATCH, 1, 1, 1, generator=generator)) / 255
        noise = deviation * torch.randn(x.shape, generator=generator)
        loss = (model(x + noise) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def test(model: nn.Module, image: Tensor, level: int) -> float:
    """Return the peak signal-to-noise ratio in dB on the whole image."""
    noisy = image + level / 255 * torch.randn(image.shape, generator=torch.Generator().manual_seed(level))
    restored = (noisy - model(noisy[None])[0]).clamp(0, 1)
    return -10 * math.log10(float((restored - image).square().mean()))


@torch.no_grad()
def gates(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return the gates of each block: (values, C), of images and windows."""
    seen: list[Tensor] = []
    blocks = [module for module in model.modules() if isinstance(module, senet.SqueezeExcitation)]
    handles = [se.gate.register_forward_hook(lambda m, a, out: seen.append(out.flatten(0, -2))) for se in blocks]
    model(inputs)
    for handle in handles:
        handle.remove()
    return [2 * values for values in seen]


def shift(model: nn.Module, image: Tensor, level: int) -> float:
    """Return the mean distance of gates on a whole image from those on its crops, in deviations over the crops.

    The distance is Wasserstein's, between the distributions over the image: of one value by whole maps.
    """
    generator = torch.Generator().manual_seed(level)
    noisy = image + level / 255 * torch.randn(image.shape, generator=generator)
    expected, found = gates(model, crops([noisy], 512, generator)), gates(model, noisy[None])
    steps = torch.linspace(0.005, 0.995, 100)
    distances = []
    for one, other in zip(expected, found, strict=True):
        distance = (one.quantile(steps, 0) - _thinned(other).quantile(steps, 0)).abs().mean(0)
        distances.append(distance / one.std(0).clamp(min=1e-6))
    return float(torch.cat(distances).mean())


def _thinned(values: Tensor) -> Tensor:
    return values[:: max(1, len(values) // 50_000)]  # the most that torch.quantile sorts


def results(steps: int, seeds: int) -> Iterator[dict[str, object]]:
    """Yield one row for each test photograph and seed."""
    images = photographs()
    for name, image in images.items():
        others = [other for key, other in images.items() if key != name]
        for seed in range(seeds):
            model = train(others, steps, seed)
            windowed = senet.set_window(copy.deepcopy(model), CROP)
            row: dict[str, object] = {"image": name, "seed": seed}
            for how, network in (("whole", model), ("windows", windowed)):
                row |= {f"{how} {level}": round(test(network, image, level), 3) for level in LEVELS}
            row |= {"shift whole": shift(model, image, 25), "shift windows": shift(windowed, image, 25)}
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for row in results(options.steps, options.seeds):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
