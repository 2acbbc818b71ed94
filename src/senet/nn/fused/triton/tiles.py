"""The partition of a map among programs of the Triton kernels, from fixed rules.

There is no autotuning: a first step of minutes costs more than the last percent saves.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Between", "Elements", "Plan", "Reduction", "plan_for"]

# Programs that fill a large GPU a few times over (132 multiprocessors, 8 programs each).
_PROGRAMS = 1056
# Most statistics, and most weights, for the single-kernel path. At 2^14 statistics `excite_backward` took 57 us on an
# H200 and `excite` 24 us, several times the cost of the launches that they save.
_SMALL = 2**12, 2**15
# Most cached plans; each takes about 1 kB.
_MOST = 4096
_plans: dict[Hashable, "Plan"] = {}


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power(n: int) -> int:
    """Return the least power of two that is n or more."""
    return 1 << max(0, n - 1).bit_length()


class Reduction(NamedTuple):
    """Partition for `stats` and `reduce`: tile, warps, load stages; S units of `per` pixels per sample."""

    BL: int
    BC: int
    warps: int
    stages: int
    S: int
    per: int
    units: int
    group: int
    blocks: int
    programs: int
    one: bool


class Elements(NamedTuple):
    """Partition for `scale` and `gradient`: tile, warps; T tiles per sample, rows of tiles, blocks of channels."""

    BL: int
    BC: int
    warps: int
    T: int
    rows: int
    blocks: int


class Between(NamedTuple):
    """Partition for the kernels between the passes over maps.

    Args:
        small: whether one kernel in forward and one in backward replace three each.
        BH: the hidden width, rounded up to a power of two.
        channel_programs: number of programs of BC channels, with tiles of BN samples by SB units.
        dot_samples, dot_units, warps: tiles and warps of kernels with matrix products.
        BK, K, per: products over channels have K parts of `per` channels, in steps of BK.
    """

    small: bool
    BC: int
    BN: int
    SB: int
    settle_warps: int
    channel_programs: int
    dot_samples: int
    dot_units: int
    warps: int
    BH: int
    BK: int
    K: int
    per: int


def _reduction_tile(last: bool, C: int, L: int) -> tuple[int, int, int]:
    """Return BL, BC and warps.

    Channels last: rows of 128 channels are 256 bytes, and a tile of 32 rows 8 KB. A multiprocessor's registers hold 4
    to 7 programs, each with three tiles in flight: two or three times the data that hides memory latency. A map of at
    most 64 pixels is one tile. Where channels are not a multiple of 16 bytes, values are loaded one by one, which takes
    more registers. Contiguous: the same with rows of pixels.
    """
    if not last:
        BL = min(_power(L), max(256, 4096 // _power(C)))
        return BL, min(_power(C), max(1, 4096 // BL)), 4
    if L <= 64:
        BL = _power(L)
        return BL, min(_power(C), max(64, min(256, 4096 // BL))), 4
    BC = min(128, _power(C))
    return min(_power(L), 32 if BC == 128 and L > 256 and C % 16 == 0 else 2048 // BC), BC, 4


def _reduction(last: bool, N: int, C: int, L: int) -> Reduction:
    BL, BC, warps = _reduction_tile(last, C, L)
    blocks = _cdiv(C, BC)
    one = L <= BL
    programs = _PROGRAMS if L > 256 else 2 * _PROGRAMS
    S = max(1, min(_cdiv(L, BL), programs // max(1, N * blocks), 256))
    per = _cdiv(_cdiv(L, S), BL) * BL
    S = _cdiv(L, per)
    # Several units per program where enough programs remain, so that start-up does not dominate.
    group = max(1, min(8, N * blocks // _PROGRAMS)) if one else 1
    stages = 3 if not one or group > 1 else 1
    return Reduction(BL, BC, warps, stages, S, per, N * S, group, blocks, _cdiv(N * S, group) * blocks, one)


def _elements(last: bool, N: int, C: int, L: int) -> Elements:
    if last:
        BL = min(64 if L <= 64 else 32, _power(L))
        BC = min(_power(C), max(64, min(256, 4096 // BL)))
    else:
        BL = min(_power(L), max(256, 4096 // _power(C)))
        BC = min(_power(C), max(1, 4096 // BL))
    T = _cdiv(L, BL)
    return Elements(BL, BC, 4, T, N * T, _cdiv(C, BC))


def _between(r: Reduction, N: int, C: int, H: int) -> Between:
    BH = max(16, _power(H))
    small = 0 < H <= 64 and _SMALL[0] >= N * r.S * C and _SMALL[1] >= C * H
    BC = min(64, max(16, _power(C))) if small else 16
    SB = min(_power(r.S), 8)
    BN = min(_power(N), max(1, (2048 if small else 4096) // BC // SB))
    dot_samples = 32 if BH <= 64 and not small else 16
    BK = min(64 if small else 128, max(16, _power(C)))
    # A program sums 256 channels or more, where there are as many.
    K = max(1, min(4, C // 256))
    per = _cdiv(_cdiv(C, K), BK) * BK
    return Between(
        small=small,
        BC=BC,
        BN=BN,
        SB=SB,
        settle_warps=8 if BN * SB * BC >= 4096 else 4,
        channel_programs=_cdiv(C, 16),
        dot_samples=dot_samples,
        dot_units=min(SB, 64 // dot_samples),
        warps=4 if BH < 128 and not small else 8,
        BH=BH,
        BK=BK,
        K=_cdiv(C, per),
        per=per,
    )


class Plan:
    """Everything that depends on a map's shape and memory format, and on the hidden width.

    Args:
        y: (N, C, *spatial), contiguous or channels last.
        hidden: H; 0 where there is no excitation.
    """

    def __init__(self, y: Tensor, hidden: int) -> None:
        self.N, self.C = N, C = y.shape[0], y.shape[1]
        self.L = L = y.numel() // (N * C)
        self.H = hidden
        last = not y.is_contiguous()
        self.strides = (C * L, C, 1) if last else (C * L, 1, L)
        # Offsets within a sample need 64 bits somewhat below 2^31 elements, as the last tile extends beyond the
        # sample. Offsets of samples always have 64 bits.
        self.large = C * L >= 2**30
        self.values = float(N * L)
        self.unbiased = N * L / max(1, N * L - 1)
        self.reduction = _reduction(last, N, C, L)
        self.elements = _elements(last, N, C, L)
        self.between = _between(self.reduction, N, C, hidden)
        # Sizes of buffers.
        pieces = self.between.K * N * hidden
        self.keep = 4 * C + (2 * N * C + N * hidden if hidden else 0)
        self.part = max(self.reduction.units * 3 * C, pieces)
        self.work = 4 * C + (2 * N * C + pieces if hidden else 0)
        # Launches by the other constants of kernels, such as gate and activation.
        self.launches: dict[Hashable, Any] = {}


def plan_for(y: Tensor, hidden: int) -> Plan:
    """Return the plan of a map and a hidden width; 0 where there is no excitation."""
    key = (y.shape, y.is_contiguous(), hidden)
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MOST:
            _plans.clear()
        plan = _plans[key] = Plan(y, hidden)
    return plan
