"""Upper limits for numbers from users and files, checked before work starts. Listed in docs/limits.md."""

from senet.utils.arguments import argument_name
from senet.utils.errors import shown

__all__ = [
    "LARGEST_SIDE",
    "MOST_BATCH",
    "MOST_CHANNELS",
    "MOST_CLASSES",
    "MOST_EPOCHS",
    "MOST_ITERATIONS",
    "MOST_PIXELS",
    "MOST_PROCESSES",
    "MOST_ROUNDS",
    "MOST_RUNS",
    "MOST_SHARDS",
    "check_at_most",
]

# Side in pixels of network inputs, and of the shorter image side before the crop.
LARGEST_SIDE = 8192
# Pixels of an image when decoded and after resizing. Pillow warns above 89 million and fails above 179 million.
MOST_PIXELS = 2**27
# Channels of an image or map, and units of SE's hidden layer.
MOST_CHANNELS = 65_536
MOST_CLASSES = 1_000_000
MOST_EPOCHS = 1_000_000
# Steps of a run whose length is given in steps.
MOST_ITERATIONS = 1_000_000_000
# Images in a step.
MOST_BATCH = 2**20
MOST_ROUNDS = 1_000_000
# Worker processes, jobs and threads.
MOST_PROCESSES = 1024
# Runs of a study: arms times seeds.
MOST_RUNS = 10_000
MOST_SHARDS = 100_000


def check_at_most(name: str, value: float | None, most: int, why: str = "") -> None:
    """Check that a number does not exceed a limit.

    Args:
        name: name of the option or field.
        value: the number; None is accepted.
        most: the limit.
        why: a remedy or reason, appended to the message.

    Raises:
        ValueError: the number exceeds the limit.
    """
    if value is not None and value > most:
        reason = f"; {why}" if why else ""
        raise ValueError(f"{argument_name(name)} must be at most {most:,}, got {shown(value)}{reason}")
