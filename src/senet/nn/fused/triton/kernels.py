# mypy: ignore-errors
# ruff: noqa: SIM102, E741
"""Triton kernels that read or write feature maps; `triton.excitation` has the kernels between them.

A map is (N, C, *spatial) with strides sn, sl, sc of a sample, a pixel and a channel; L is the number of pixels of a
sample. A unit is a piece of one sample: up to `per` of its L pixels, S units to a sample. A program takes one block of
BC channels, of one or several units. All arithmetic is in float32; only maps are rounded to their dtype.

With m (N, C) the means over space, mu and var (C,) the mean and variance over samples and space,
a = weight / sqrt(var + eps), z = a (m - mu) + bias and the gate s = gate(excite(z)):

    output    x  = (y - mu) s a + s bias              `stats` reads y; `scale` reads y and writes x
    gradient  dy = s a g + k (y - mu) + d             `reduce` reads g and y; `gradient` reads both and writes dy

Values of a channel are relative to a pivot p near mu, so that a mean much larger than the deviation loses no digits.
`scale` and `gradient` traverse a map in the reverse order of `stats` and `reduce`, and start with data that the L2
cache still holds. Blocks of channels are consecutive programs: together they read whole rows of memory.
"""

import triton
import triton.language as tl

from senet.nn.fused.triton.gates import NAN, gate, vector


@triton.jit
def locate_unit(u, S, per, L, LARGE: tl.constexpr):
    """Return sample, first pixel and end of a unit."""
    n, s = (u // S).to(tl.int64), u % S
    if LARGE:
        s = s.to(tl.int64)
    return n, s * per, tl.minimum(s * per + per, L)


@triton.jit
def offsets(i, c, sl, sc, LARGE: tl.constexpr):
    """Return offsets (BL, BC) of pixels i and channels c in a sample; int64 if it is LARGE (2^31 elements)."""
    if LARGE:
        i, c = i.to(tl.int64), c.to(tl.int64)
    return i[:, None] * sl + c[None, :] * sc


@triton.jit
def _shift(sample, start, end, c, cm, sl, sc, LARGE: tl.constexpr):
    """Return a unit's middle pixel (BC,), to which the unit's values are relative; 0 where it is not finite.

    It is loaded together with the tile, so that no load waits for another, and belongs to the unit, so that blank
    images and outliers elsewhere do not affect it. Its deviation is part of the unit's variance: the relative error of
    the variance is at most float32's times the number of pixels, and usually float32's.
    """
    middle = start + (end - start) // 2
    if LARGE:
        middle, c = middle.to(tl.int64), c.to(tl.int64)
    x = tl.load(sample + middle * sl + c * sc, mask=cm, other=0.0).to(tl.float32)
    return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.jit
def _store_stats(part, u, m, q, pixels, shift, c, cm, C):
    """Store a unit's sums m of y - shift and q of its square as (shift, mean - shift, sum of squared deviations)."""
    mean = m / pixels.to(tl.float32)
    at = part + u.to(tl.int64) * 3 * C + c
    tl.store(at, shift, mask=cm)
    tl.store(at + C, mean, mask=cm)
    tl.store(at + 2 * C, tl.maximum(q - mean * m, 0.0, propagate_nan=NAN), mask=cm)


@triton.jit
def stats(
    y, part, count, C, L, S, per, units, group, blocks, sn, sl, sc,
    ONE: tl.constexpr, LARGE: tl.constexpr, STAGES: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read y, write part (units, 3, C): see `_store_stats`. Increment `count`, batch norm's number of batches.

    With ONE, a tile holds a unit, and a program takes `group` units: it loads the next while it reduces one.
    """
    row, c = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    cm = c < C
    if count is not None:
        if tl.program_id(0) == 0:
            tl.store(count, tl.load(count) + 1)
    if ONE:
        for j in tl.range(0, tl.minimum(group, units - row * group), num_stages=STAGES):
            u = row * group + j
            n, start, end = locate_unit(u, S, per, L, LARGE)
            i = start + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            x = tl.load(y + n * sn + offsets(i, c, sl, sc, LARGE), mask=mask, other=0.0).to(tl.float32)
            shift = _shift(y + n * sn, start, end, c, cm, sl, sc, LARGE)
            d = tl.where(mask, x - shift[None, :], 0.0)
            _store_stats(part, u, tl.sum(d, 0), tl.sum(d * d, 0), end - start, shift, c, cm, C)
    else:
        n, start, end = locate_unit(row, S, per, L, LARGE)
        shift = _shift(y + n * sn, start, end, c, cm, sl, sc, LARGE)
        m = tl.zeros([BL, BC], tl.float32)
        q = tl.zeros([BL, BC], tl.float32)
        for l in tl.range(start, end, BL, num_stages=STAGES):
            i = l + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            x = tl.load(y + n * sn + offsets(i, c, sl, sc, LARGE), mask=mask, other=0.0).to(tl.float32)
            d = tl.where(mask, x - shift[None, :], 0.0)
            m += d
            q += d * d
        _store_stats(part, row, tl.sum(m, 0), tl.sum(q, 0), end - start, shift, c, cm, C)


@triton.jit
def merge_stats(part, p, m, q, C, S, per, L, BC: tl.constexpr):
    """Read part of `stats` and a pivot p (C,), write m and q (N, C): means over space of y - p and of its square."""
    n, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BC + tl.arange(0, BC)
    cm = c < C
    pivot = tl.load(p + c, mask=cm, other=0.0)
    one = tl.zeros([BC], tl.float32)
    two = tl.zeros([BC], tl.float32)
    for s in range(S):
        at = part + (n * S + s) * 3 * C + c
        pixels = tl.minimum(per, L - s * per).to(tl.float32)
        e = (tl.load(at, mask=cm, other=0.0) - pivot) + tl.load(at + C, mask=cm, other=0.0)
        one += e * pixels
        two += tl.load(at + 2 * C, mask=cm, other=0.0) + e * e * pixels
    tl.store(m + n * C + c, one / L, mask=cm)
    tl.store(q + n * C + c, two / L, mask=cm)


@triton.jit
def locate_tile(rows, blocks, T, BL: tl.constexpr, BC: tl.constexpr, LARGE: tl.constexpr):
    """Return sample, pixels and channels of a program of one tile, in reverse order; T tiles to a sample."""
    pid = rows * blocks - 1 - tl.program_id(0)
    n, t = (pid // blocks // T).to(tl.int64), pid // blocks % T
    if LARGE:
        t = t.to(tl.int64)
    return n, t * BL + tl.arange(0, BL), pid % blocks * BC + tl.arange(0, BC)


@triton.jit
def _elemt(y, skip, out, at, mask, p, a, b):
    """Write the tile (y - p) a + b; with a skip, relu of it plus the skip."""
    x = (tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - p[None, :]) * a[None, :] + b[None, :]
    if skip is not None:
        x += tl.load(skip + at, mask=mask, other=0.0).to(tl.float32)
        x = tl.maximum(x, 0.0, propagate_nan=NAN)
    tl.store(out + at, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def scale(
    y, skip, out, keep, bias, gain, N, C, L, rows, blocks, T, sn, sl, sc,
    GATE: tl.constexpr, LARGE: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read y and skip, write out: the gate times the normalized map; with a skip, relu of it plus the skip."""
    n, i, c = locate_tile(rows, blocks, T, BL, BC, LARGE)
    cm = c < C
    p = tl.load(keep + c, mask=cm, other=0.0)
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    b = vector(bias, c, cm, 0.0, BC) - a * tl.load(keep + C + c, mask=cm, other=0.0)
    if GATE != "none":
        s = gate(tl.load(keep + (4 + N + n) * C + c, mask=cm, other=0.0), gain, GATE)
        a, b = s * a, s * b
    mask = (i < L)[:, None] & cm[None, :]
    _elemt(y, skip, out, n * sn + offsets(i, c, sl, sc, LARGE), mask, p, a, b)


@triton.jit
def elemt(
    y, skip, out, p, a, b, C, L, rows, blocks, T, sn, sl, sc,
    LARGE: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read y and skip, write out = (y - p) a + b with a and b (N, C); with a skip, relu of it plus the skip."""
    n, i, c = locate_tile(rows, blocks, T, BL, BC, LARGE)
    cm = c < C
    p = tl.load(p + c, mask=cm, other=0.0)
    a = tl.load(a + n * C + c, mask=cm, other=0.0)
    b = tl.load(b + n * C + c, mask=cm, other=0.0)
    mask = (i < L)[:, None] & cm[None, :]
    _elemt(y, skip, out, n * sn + offsets(i, c, sl, sc, LARGE), mask, p, a, b)


@triton.jit
def _masked(g, out, h, at, mask):
    """Return a tile of g; with a ReLU's output `out`, the gradient of the ReLU's input, which is also written to h."""
    v = tl.load(g + at, mask=mask, other=0.0)
    if out is not None:
        v = tl.where(tl.load(out + at, mask=mask, other=0.0) <= 0, 0.0, v).to(h.dtype.element_ty)
        tl.store(h + at, v, mask=mask)
    return v.to(tl.float32)


@triton.jit
def reduce(
    g, out, y, h, part, p, C, L, S, per, units, group, blocks, sn, sl, sc,
    ONE: tl.constexpr, LARGE: tl.constexpr, STAGES: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read g, out and y, write h and part (units, 2, C): sums over a unit of h and of h (y - p), see `_masked`."""
    row, c = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    cm = c < C
    pivot = tl.load(p + c, mask=cm, other=0.0)
    if ONE:
        for j in tl.range(0, tl.minimum(group, units - row * group), num_stages=STAGES):
            u = row * group + j
            n, start, end = locate_unit(u, S, per, L, LARGE)
            i = start + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            at = n * sn + offsets(i, c, sl, sc, LARGE)
            x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - pivot[None, :]
            v = _masked(g, out, h, at, mask)
            to = part + u.to(tl.int64) * 2 * C + c
            tl.store(to, tl.sum(v, 0), mask=cm)
            tl.store(to + C, tl.sum(v * x, 0), mask=cm)
    else:
        n, start, end = locate_unit(row, S, per, L, LARGE)
        t = tl.zeros([BL, BC], tl.float32)
        q = tl.zeros([BL, BC], tl.float32)
        for l in tl.range(start, end, BL, num_stages=STAGES):
            i = l + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            at = n * sn + offsets(i, c, sl, sc, LARGE)
            x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - pivot[None, :]
            v = _masked(g, out, h, at, mask)
            t += v
            q += v * x
        to = part + row.to(tl.int64) * 2 * C + c
        tl.store(to, tl.sum(t, 0), mask=cm)
        tl.store(to + C, tl.sum(q, 0), mask=cm)


@triton.jit
def _backward_elemt(h, y, dy, at, mask, p, a, k, d):
    """Write the tile a h + k (y - p) + d."""
    v = tl.load(h + at, mask=mask, other=0.0).to(tl.float32) * a[None, :] + d[None, :]
    v += (tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - p[None, :]) * k[None, :]
    tl.store(dy + at, v.to(dy.dtype.element_ty), mask=mask)


@triton.jit
def gradient(
    h, y, dy, keep, work, gain, N, C, L, rows, blocks, T, sn, sl, sc,
    GATE: tl.constexpr, LARGE: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read h and y, write dy."""
    n, i, c = locate_tile(rows, blocks, T, BL, BC, LARGE)
    cm = c < C
    p = tl.load(keep + c, mask=cm, other=0.0)
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    k = tl.load(work + 2 * C + c, mask=cm, other=0.0)
    d = tl.load(work + 3 * C + c, mask=cm, other=0.0)
    if GATE != "none":
        d += tl.load(work + (4 + n) * C + c, mask=cm, other=0.0) * a
        a *= gate(tl.load(keep + (4 + N + n) * C + c, mask=cm, other=0.0), gain, GATE)
    mask = (i < L)[:, None] & cm[None, :]
    _backward_elemt(h, y, dy, n * sn + offsets(i, c, sl, sc, LARGE), mask, p, a, k, d / L)


@triton.jit
def backward_elemt(
    h, y, dy, p, a, k, d, C, L, rows, blocks, T, sn, sl, sc,
    LARGE: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read h and y, write dy = a h + k (y - p) + d with a and d (N, C), k (C,)."""
    n, i, c = locate_tile(rows, blocks, T, BL, BC, LARGE)
    cm = c < C
    a = tl.load(a + n * C + c, mask=cm, other=0.0)
    d = tl.load(d + n * C + c, mask=cm, other=0.0)
    k = tl.load(k + c, mask=cm, other=0.0)
    p = tl.load(p + c, mask=cm, other=0.0)
    mask = (i < L)[:, None] & cm[None, :]
    _backward_elemt(h, y, dy, n * sn + offsets(i, c, sl, sc, LARGE), mask, p, a, k, d)
