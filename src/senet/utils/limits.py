"""Upper limits of the numbers that users and files give, checked before work starts; docs/limits.md lists them."""

from senet.utils.errors import shown

__all__ = [
    "LARGEST_SIDE",
    "MOST_BATCH",
    "MOST_CHANNELS",
    "MOST_CLASSES",
    "MOST_EPOCHS",
    "MOST_PIXELS",
    "MOST_PROCESSES",
    "MOST_ROUNDS",
    "MOST_RUNS",
    "MOST_SHARDS",
    "check_at_most",
]

# Pixels of a side of what enters a network, and of the shorter side before the crop.
LARGEST_SIDE = 8192
# Pixels of an image, as it is decoded and after it is resized; Pillow warns above 89 and refuses above 179 million.
MOST_PIXELS = 2**27
# Channels of an image, of a map and of the hidden layer of SE.
MOST_CHANNELS = 65_536
MOST_CLASSES = 1_000_000
MOST_EPOCHS = 1_000_000
# Images of a step.
MOST_BATCH = 2**20
MOST_ROUNDS = 1_000_000
# Worker processes, jobs and threads.
MOST_PROCESSES = 1024
# Of a study: arms times seeds.
MOST_RUNS = 10_000
MOST_SHARDS = 100_000


def check_at_most(name: str, value: float | None, most: int, why: str = "") -> None:
    """Refuse a number above a limit, by name.

    Args:
        name: of the option or field.
        value: None passes.
        most: the limit.
        why: appended to the message, such as a remedy.

    Raises:
        ValueError: the number is above the limit; the message has both.
    """
    if value is not None and value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {shown(value)}{f'; {why}' if why else ''}")
