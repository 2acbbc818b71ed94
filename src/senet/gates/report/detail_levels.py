"""Define how much of a recording a page stores: everything if it fits, otherwise less."""

from dataclasses import dataclass

from senet.gates.recording.record import Gates

__all__ = ["DETAIL_LEVELS", "DetailLevel"]


@dataclass(frozen=True)
class DetailLevel:
    """The level of detail of each block in the page.

    Attributes:
        channels: number of sampled channels, whose means by class and gates of single images are stored.
        classes: number of evenly spaced classes for these means; None for all.
        bits: precision of these means. 12 bits are finer than the three digits that the page shows.
        wide: number of classes whose means are stored for all channels, in 8 bits; None for all.
        heat: maximum number of cells of a heat map, classes by channels.
        bins: maximum number of bins of a channel's histogram.
        ends: number of images at each end of a channel.
    """

    channels: int
    classes: int | None
    bits: int
    wide: int | None
    heat: tuple[int, int]
    bins: int
    ends: int

    def exceeds(self, gates: Gates, budget: int) -> bool:
        """Return whether the means alone exceed the budget even when compressed."""
        classes = len(gates.classes)
        kept = classes if self.classes is None else min(classes, self.classes)
        wide = kept if self.wide is None else min(kept, self.wide)
        full = sum(min(self.channels, block.channels) for block in gates.blocks)
        every = sum(block.channels for block in gates.blocks)
        # The last bits of the means are noise: compression and base64 cancel out. The rest of the page takes nearly
        # half of the budget.
        return full * kept * (self.bits / 8 + 1) + every * wide * 2 > 0.55 * budget


# In descending order of detail. The page uses the first that fits into the budget.
DETAIL_LEVELS = (
    DetailLevel(channels=1 << 30, classes=None, bits=16, wide=0, heat=(1000, 2048), bins=64, ends=6),
    DetailLevel(channels=50, classes=None, bits=12, wide=None, heat=(128, 192), bins=32, ends=6),
    DetailLevel(channels=50, classes=None, bits=12, wide=64, heat=(128, 192), bins=32, ends=4),
    DetailLevel(channels=50, classes=None, bits=12, wide=32, heat=(100, 144), bins=24, ends=4),
    DetailLevel(channels=50, classes=None, bits=12, wide=16, heat=(100, 128), bins=24, ends=4),
    DetailLevel(channels=50, classes=None, bits=12, wide=8, heat=(80, 128), bins=20, ends=4),
    DetailLevel(channels=50, classes=None, bits=12, wide=8, heat=(64, 96), bins=16, ends=4),
    DetailLevel(channels=50, classes=None, bits=12, wide=4, heat=(64, 96), bins=16, ends=4),
    DetailLevel(channels=50, classes=None, bits=8, wide=8, heat=(80, 128), bins=20, ends=4),
    DetailLevel(channels=24, classes=None, bits=8, wide=8, heat=(64, 96), bins=16, ends=4),
    DetailLevel(channels=24, classes=500, bits=8, wide=4, heat=(64, 96), bins=16, ends=3),
    DetailLevel(channels=12, classes=200, bits=8, wide=4, heat=(48, 64), bins=12, ends=3),
    DetailLevel(channels=8, classes=50, bits=8, wide=2, heat=(32, 48), bins=8, ends=2),
)
