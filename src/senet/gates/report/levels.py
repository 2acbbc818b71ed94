"""How much of a recording a page keeps: all of it where that fits, less and less where it does not."""

from dataclasses import dataclass

from senet.gates.recording.record import Gates

__all__ = ["LEVELS", "Level"]


@dataclass(frozen=True)
class Level:
    """What is kept of each block.

    Attributes:
        channels: of so many, sampled, the means by class are kept in full, and the gates of the recorded images.
        classes: of so many, evenly spread, the means by class are kept; None for all.
        bits: of the means of sampled channels: 12 are finer than the three digits that the page shows.
        wide: of so many classes the means are kept for all channels, in 8 bits.
        heat: cells of a heat map at most, classes by channels.
        bins: of a channel's histogram at most.
        ends: recorded images at each end of a channel.
    """

    channels: int
    classes: int | None
    bits: int
    wide: int | None
    heat: tuple[int, int]
    bins: int
    ends: int

    def hopeless(self, gates: Gates, budget: int) -> bool:
        """Whether the means alone are so many that compressing them could not help: nobody waits for that."""
        classes = len(gates.classes)
        kept = classes if self.classes is None else min(classes, self.classes)
        wide = kept if self.wide is None else min(kept, self.wide)
        full = sum(min(self.channels, block.channels) for block in gates.blocks)
        every = sum(block.channels for block in gates.blocks)
        # Such numbers are noise in their last bits: compressed and in base64 they take about as many bytes as before,
        # and everything else takes nearly half of the budget.
        return full * kept * (self.bits / 8 + 1) + every * wide * 2 > 0.55 * budget


# From the richest to the poorest: the first that fits into the budget is taken.
LEVELS = (
    Level(channels=1 << 30, classes=None, bits=16, wide=0, heat=(1000, 2048), bins=64, ends=6),
    Level(channels=50, classes=None, bits=12, wide=None, heat=(128, 192), bins=32, ends=6),
    Level(channels=50, classes=None, bits=12, wide=64, heat=(128, 192), bins=32, ends=4),
    Level(channels=50, classes=None, bits=12, wide=32, heat=(100, 144), bins=24, ends=4),
    Level(channels=50, classes=None, bits=12, wide=16, heat=(100, 128), bins=24, ends=4),
    Level(channels=50, classes=None, bits=12, wide=8, heat=(80, 128), bins=20, ends=4),
    Level(channels=50, classes=None, bits=12, wide=8, heat=(64, 96), bins=16, ends=4),
    Level(channels=50, classes=None, bits=12, wide=4, heat=(64, 96), bins=16, ends=4),
    Level(channels=50, classes=None, bits=8, wide=8, heat=(80, 128), bins=20, ends=4),
    Level(channels=24, classes=None, bits=8, wide=8, heat=(64, 96), bins=16, ends=4),
    Level(channels=24, classes=500, bits=8, wide=4, heat=(64, 96), bins=16, ends=3),
    Level(channels=12, classes=200, bits=8, wide=4, heat=(48, 64), bins=12, ends=3),
    Level(channels=8, classes=50, bits=8, wide=2, heat=(32, 48), bins=8, ends=2),
)
