"""Offsets of maps that are too large to be made here."""

import pytest
import torch
import triton
import triton.language as tl

from senet.nn.fused.triton import tiles
from senet.nn.fused.triton.kernels import locate_tile, locate_unit, offsets
from senet.nn.fused.triton.tiles import Plan
from tests.nn.fused.interpreted.reference import Case


@triton.jit
def _offsets_of_unit(found, u, S, per, L, sn, sl, sc, BL: tl.constexpr, BC: tl.constexpr):
    n, start, end = locate_unit(u, S, per, L, True)
    i, c = tl.arange(0, BL), tl.arange(0, BC)
    tl.store(found + i[:, None] * BC + c[None, :], n * sn + offsets(start + i, c, sl, sc, True))
    tl.store(found + BL * BC, end.to(tl.int64))


@triton.jit
def _offsets_of_tile(found, rows, blocks, T, sn, sl, sc, BL: tl.constexpr, BC: tl.constexpr):
    n, i, c = locate_tile(rows, blocks, T, BL, BC, True)
    to = tl.arange(0, BL)[:, None] * BC + tl.arange(0, BC)[None, :]
    tl.store(found + to, n * sn + offsets(i, c, sl, sc, True))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("C", "L"), [(64, 2**26 + 5), (3, 2**32 + 1)])
def test_offsets_above_2_31(last: bool, C: int, L: int) -> None:
    """The last unit and tile of the last of three samples, against Python's integers."""
    S, per, BL, BC = 16, -(-L // 16), 4, 2
    sn, sl, sc = (C * L, C, 1) if last else (C * L, 1, L)
    found = torch.zeros(BL * BC + 1, dtype=torch.int64)
    _offsets_of_unit[(1,)](found, 3 * S - 1, S, per, L, sn, sl, sc, BL=BL, BC=BC)
    first = 15 * per
    expected = [2 * sn + (first + i) * sl + c * sc for i in range(BL) for c in range(BC)]
    assert found.tolist() == [*expected, L]
    T, blocks = -(-L // BL), -(-C // BC)
    if 3 * T * blocks < 2**31:  # programs are counted by 31 bits
        _offsets_of_tile[(1,)](found, 3 * T, blocks, T, sn, sl, sc, BL=BL, BC=BC)
        first, block = (T - 1) * BL, (blocks - 1) * BC
        expected = [2 * sn + (first + i) * sl + (block + c) * sc for i in range(BL) for c in range(BC)]
        assert found[:-1].tolist() == expected


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_with_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch, memory_format: torch.memory_format) -> None:
    class Large(Plan):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.large = True

    monkeypatch.setattr(tiles, "Plan", Large)
    monkeypatch.setattr(tiles, "_plans", {})
    Case(memory_format=memory_format).compare()
    Case(memory_format=memory_format, shape=(3, 7, 9, 31), hidden=2).compare(5e-6)


def test_large_samples_have_them() -> None:
    shapes = [(2, 64, 2**13, 2**12), (2, 64, 2**13, 2**12 - 1), (1000, 64, 2**11, 2**11)]
    assert [Plan(torch.empty(shape, device="meta"), 0).large for shape in shapes] == [True, True, False]
