"""How the Triton kernels divide a map among programs: one fixed table, and what follows from it for a shape.

There is no search at run time: a first step that takes minutes costs more than the last percent saves.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Elements", "ExcitationPlan", "Plan", "Reduction", "plan_for"]

# Programs that fill a large GPU a few times over (132 multiprocessors, 8 programs each).
_PROGRAMS = 1056
# Plans that are kept; each takes about 1 kB.
_MOST = 4096
_plans: dict[Hashable, "Plan"] = {}


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power(n: int) -> int:
    """The least power of two that is n or more."""
    return 1 << max(0, n - 1).bit_length()


class Reduction(NamedTuple):
    """Of `stats` and `reduce`: tile, warps, load stages; S units of `per` pixels a sample; units a program."""

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
    """Of `scale` and `spread`: tile, warps; T tiles a sample, rows of them, blocks of channels."""

    BL: int
    BC: int
    warps: int
    T: int
    rows: int
    blocks: int


class ExcitationPlan(NamedTuple):
    """Of the kernels between: tiles, and K parts of `per` channels each for products over channels."""

    BC: int
    BN: int
    SB: int
    channel_programs: int
    dot_samples: int
    dot_units: int
    BH: int
    BK: int
    K: int
    per: int
    warps: int
    sample_tiles: int
    hidden_tiles: int
    wide_blocks: int


def _reduction_tile(last: bool, C: int, L: int) -> tuple[int, int, int, int]:
    """BL, BC, warps and stages.

    Channels last: rows of 128 channels are 256 bytes or more, and 32 of them 8 KB; a tile of its own for a small map,
    whose loads are then all in flight at once. Contiguous: rows are pixels.
    """
    if not last:
        BL = min(256, _power(L))
        return BL, min(_power(C), max(1, 4096 // BL)), 4, 2
    if L <= 64:
        BL = _power(L)
        return BL, min(_power(C), max(64, min(256, 4096 // BL))), 4, 3
    BC = min(128, _power(C))
    rows = 16 if L <= 256 else 32
    return min(_power(L), rows * (128 // BC)), BC, 4, 3


def _reduction(last: bool, N: int, C: int, L: int) -> Reduction:
    BL, BC, warps, stages = _reduction_tile(last, C, L)
    blocks = _cdiv(C, BC)
    one = L <= BL
    S = max(1, min(_cdiv(L, BL), _PROGRAMS // max(1, N * blocks), 256))
    per = _cdiv(_cdiv(L, S), BL) * BL
    S = _cdiv(L, per)
    # Several units to a program only where enough programs remain.
    group = max(1, min(8, N * blocks // (2 * _PROGRAMS))) if one else 1
    return Reduction(BL, BC, warps, stages, S, per, N * S, group, blocks, _cdiv(N * S, group) * blocks, one)


def _elements(last: bool, N: int, C: int, L: int) -> Elements:
    if last:
        BL = min(64 if L <= 64 else 32, _power(L))
        BC = min(_power(C), max(64, min(256, 4096 // BL)))
    else:
        BL = min(256, _power(L))
        BC = min(_power(C), max(1, 4096 // BL))
    T = _cdiv(L, BL)
    return Elements(BL, BC, 4, T, N * T, _cdiv(C, BC))


def _excitation(r: Reduction, N: int, C: int, H: int) -> ExcitationPlan:
    SB = min(_power(r.S), 8)
    BN = min(_power(N), max(1, 64 // SB))
    BH = max(16, _power(H))
    dot_samples = 32 if BH <= 64 else 16
    BK = min(128, max(16, _power(C)))
    # A program adds up 256 channels or more, if there are as many.
    K = max(1, min(8, C // 256))
    per = _cdiv(_cdiv(C, K), BK) * BK
    return ExcitationPlan(
        BC=16,
        BN=BN,
        SB=SB,
        channel_programs=_cdiv(C, 16),
        dot_samples=dot_samples,
        dot_units=min(SB, 64 // dot_samples),
        BH=BH,
        BK=BK,
        K=_cdiv(C, per),
        per=per,
        warps=4 if BH <= 128 else 8,
        sample_tiles=_cdiv(N, 16),
        hidden_tiles=_cdiv(H, 16),
        wide_blocks=_cdiv(C, 64),
    )


class Plan:
    """All that depends on the shape, dtype and memory format of a map, and the width of the hidden layer.

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
        self.large = C * L >= 2**31
        self.values = float(N * L)
        self.unbiased = N * L / max(1, N * L - 1)
        self.reduction = _reduction(last, N, C, L)
        self.elements = _elements(last, N, C, L)
        self.excitation = _excitation(self.reduction, N, C, hidden)
        pieces = self.excitation.K * N * hidden
        self.keep = 4 * C + (2 * N * C + N * hidden if hidden else 0)
        self.part = max(self.reduction.units * 3 * C, pieces)
        self.work = 4 * C + (2 * N * C + pieces if hidden else 0)


def plan_for(y: Tensor, hidden: int) -> Plan:
    """The plan of a map and a hidden width; 0 where there is no excitation."""
    key: Any = (y.shape, y.stride(), y.dtype, y.device, hidden)
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MOST:
            _plans.clear()
        plan = _plans[key] = Plan(y, hidden)
    return plan
