# mypy: ignore-errors
# ruff: noqa: E741
"""Triton kernels of batch norm, activation and SE; `reference_activated` has the equations.

Maps, units and programs are those of `triton.kernels`. Five kernels read or write maps: `stats` of `triton.kernels`,
`mean`, `scale`, `sums` and `gradient`; `gather`, `merge_mean`, `merge_sums` and `coefficients` are between them.
"""

import triton
import triton.language as tl

from senet.nn.fused.triton.excitation import pieces_of, statistics
from senet.nn.fused.triton.gates import activate, activation_gradient, vector
from senet.nn.fused.triton.kernels import locate_tile, locate_unit, offsets


@triton.jit
def _factors(p, a, b, c, cm):
    """Return the pivot and batch norm's factors, (BC,)."""
    pivot = tl.load(p + c, mask=cm, other=0.0)
    return pivot, tl.load(a + c, mask=cm, other=0.0), tl.load(b + c, mask=cm, other=0.0)


@triton.jit
def _product(x, total):
    """Return x total, where total is 0 even if x is not finite, see `reference_activated`."""
    return tl.where((tl.abs(x) < float("inf")) | (total != 0.0), x, 0.0) * total


@triton.jit
def gather(
    part, factors, weight, bias, eps, N, C, S, per, L, values, unbias,
    BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read part of `stats`, write factors (6, C): p, mean - p, a, b, 1 / sqrt(var + eps) and the unbiased variance."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    p, mean, var = statistics(part, factors, None, None, c, True, N, C, S, per, L, values, False, False, BN, SB, BC)
    r = tl.div_rn(tl.full([BC], 1.0, tl.float32), tl.sqrt_rn(var + eps))
    a = r * vector(weight, c, cm, 1.0, BC)
    tl.store(factors + c, p, mask=cm)
    tl.store(factors + C + c, mean, mask=cm)
    tl.store(factors + 2 * C + c, a, mask=cm)
    tl.store(factors + 3 * C + c, vector(bias, c, cm, 0.0, BC) - a * mean, mask=cm)
    tl.store(factors + 4 * C + c, r, mask=cm)
    tl.store(factors + 5 * C + c, var * unbias, mask=cm)


@triton.jit
def mean(
    y, part, p, a, b, C, L, S, per, units, group, blocks, sn, sl, sc,
    ACTIVATION: tl.constexpr, ONE: tl.constexpr, LARGE: tl.constexpr, STAGES: tl.constexpr,
    BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read y, write part (units, C): sums over a unit of the activated map."""
    row, c = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    cm = c < C
    pivot, by, plus = _factors(p, a, b, c, cm)
    if ONE:
        for j in tl.range(0, tl.minimum(group, units - row * group), num_stages=STAGES):
            u = row * group + j
            n, start, end = locate_unit(u, S, per, L, LARGE)
            i = start + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            x = tl.load(y + n * sn + offsets(i, c, sl, sc, LARGE), mask=mask, other=0.0).to(tl.float32)
            x = activate((x - pivot[None, :]) * by[None, :] + plus[None, :], ACTIVATION)
            tl.store(part + u.to(tl.int64) * C + c, tl.sum(tl.where(mask, x, 0.0), 0), mask=cm)
    else:
        n, start, end = locate_unit(row, S, per, L, LARGE)
        total = tl.zeros([BL, BC], tl.float32)
        for l in tl.range(start, end, BL, num_stages=STAGES):
            i = l + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            x = tl.load(y + n * sn + offsets(i, c, sl, sc, LARGE), mask=mask, other=0.0).to(tl.float32)
            x = activate((x - pivot[None, :]) * by[None, :] + plus[None, :], ACTIVATION)
            total += tl.where(mask, x, 0.0)
        tl.store(part + row.to(tl.int64) * C + c, tl.sum(total, 0), mask=cm)


@triton.jit
def merge_mean(part, z, C, S, L, BC: tl.constexpr):
    """Read part of `mean`, write z (N, C)."""
    n, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BC + tl.arange(0, BC)
    cm = c < C
    total = tl.zeros([BC], tl.float32)
    for s in range(S):
        total += tl.load(part + (n * S + s) * C + c, mask=cm, other=0.0)
    tl.store(z + n * C + c, (total / L).to(z.dtype.element_ty), mask=cm)


@triton.jit
def scale(
    y, out, s, p, a, b, C, L, rows, blocks, T, sn, sl, sc,
    ACTIVATION: tl.constexpr, LARGE: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read y, write out: the gates s (N, C) times the activated map."""
    n, i, c = locate_tile(rows, blocks, T, BL, BC, LARGE)
    cm = c < C
    pivot, by, plus = _factors(p, a, b, c, cm)
    gates = tl.load(s + n * C + c, mask=cm, other=0.0).to(tl.float32)
    mask = (i < L)[:, None] & cm[None, :]
    at = n * sn + offsets(i, c, sl, sc, LARGE)
    x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    x = activate((x - pivot[None, :]) * by[None, :] + plus[None, :], ACTIVATION) * gates[None, :]
    tl.store(out + at, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _terms(g, y, at, mask, pivot, by, plus, ACTIVATION: tl.constexpr):
    """Return tiles of g u, f g, f g (y - p), f and f (y - p)."""
    d = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - pivot[None, :]
    h = tl.load(g + at, mask=mask, other=0.0).to(tl.float32)
    v = d * by[None, :] + plus[None, :]
    u = h * activate(v, ACTIVATION)
    f = tl.where(mask, activation_gradient(tl.full(v.shape, 1.0, tl.float32), v, ACTIVATION), 0.0)
    h = activation_gradient(h, v, ACTIVATION)
    return tl.where(mask, u, 0.0), tl.where(mask, h, 0.0), tl.where(mask, h * d, 0.0), f, f * d


@triton.jit
def _store_sums(part, u, a, b, c, d, e, at, cm, C):
    to = part + u.to(tl.int64) * 5 * C + at
    tl.store(to, tl.sum(a, 0), mask=cm)
    tl.store(to + C, tl.sum(b, 0), mask=cm)
    tl.store(to + 2 * C, tl.sum(c, 0), mask=cm)
    tl.store(to + 3 * C, tl.sum(d, 0), mask=cm)
    tl.store(to + 4 * C, tl.sum(e, 0), mask=cm)


@triton.jit
def sums(
    g, y, part, p, a, b, C, L, S, per, units, group, blocks, sn, sl, sc,
    ACTIVATION: tl.constexpr, ONE: tl.constexpr, LARGE: tl.constexpr, STAGES: tl.constexpr,
    BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read g and y, write part (units, 5, C): sums over a unit, see `_terms`."""
    row, c = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    cm = c < C
    pivot, by, plus = _factors(p, a, b, c, cm)
    if ONE:
        for j in tl.range(0, tl.minimum(group, units - row * group), num_stages=STAGES):
            u = row * group + j
            n, start, end = locate_unit(u, S, per, L, LARGE)
            i = start + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            at = n * sn + offsets(i, c, sl, sc, LARGE)
            v0, v1, v2, v3, v4 = _terms(g, y, at, mask, pivot, by, plus, ACTIVATION)
            _store_sums(part, u, v0, v1, v2, v3, v4, c, cm, C)
    else:
        n, start, end = locate_unit(row, S, per, L, LARGE)
        t0 = tl.zeros([BL, BC], tl.float32)
        t1 = tl.zeros([BL, BC], tl.float32)
        t2 = tl.zeros([BL, BC], tl.float32)
        t3 = tl.zeros([BL, BC], tl.float32)
        t4 = tl.zeros([BL, BC], tl.float32)
        for l in tl.range(start, end, BL, num_stages=STAGES):
            i = l + tl.arange(0, BL)
            mask = (i < end)[:, None] & cm[None, :]
            at = n * sn + offsets(i, c, sl, sc, LARGE)
            v0, v1, v2, v3, v4 = _terms(g, y, at, mask, pivot, by, plus, ACTIVATION)
            t0 += v0
            t1 += v1
            t2 += v2
            t3 += v3
            t4 += v4
        _store_sums(part, row, t0, t1, t2, t3, t4, c, cm, C)


@triton.jit
def _total(part, row: tl.constexpr, i, s, c, N, C, S):
    """Return one of the five rows (BN, BC) of part of `sums`, over units s."""
    at, mask = pieces_of(part, i, s, c, N, S, C, 5)
    return tl.sum(tl.load(at + row * C, mask=mask, other=0.0), 1)


@triton.jit
def merge_sums(
    part, s, ds, da, db, f0, f1, N, C, S, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read part of `sums` and the gates s, write ds, f0 and f1 (N, C), da and db (C,)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    ta = tl.zeros([BC], tl.float32)
    tb = tl.zeros([BC], tl.float32)
    for n in range(0, N, BN):
        i = (n + tl.arange(0, BN)).to(tl.int64)
        v0 = tl.zeros([BN, BC], tl.float32)
        v1 = tl.zeros([BN, BC], tl.float32)
        v2 = tl.zeros([BN, BC], tl.float32)
        v3 = tl.zeros([BN, BC], tl.float32)
        v4 = tl.zeros([BN, BC], tl.float32)
        for k in range(0, S, SB):
            unit = k + tl.arange(0, SB)
            v0 += _total(part, 0, i, unit, c, N, C, S)
            v1 += _total(part, 1, i, unit, c, N, C, S)
            v2 += _total(part, 2, i, unit, c, N, C, S)
            v3 += _total(part, 3, i, unit, c, N, C, S)
            v4 += _total(part, 4, i, unit, c, N, C, S)
        at = i[:, None] * C + c[None, :]
        mask = (i < N)[:, None] & cm[None, :]
        gates = tl.load(s + at, mask=mask, other=0.0).to(tl.float32)
        tb += tl.sum(_product(gates, v1), 0)
        ta += tl.sum(_product(gates, v2), 0)
        tl.store(ds + at, v0, mask=mask)
        tl.store(f0 + at, v3, mask=mask)
        tl.store(f1 + at, v4, mask=mask)
    tl.store(da + c, ta, mask=cm)
    tl.store(db + c, tb, mask=cm)


@triton.jit
def coefficients(
    s, dz, da, db, f0, f1, mean, a, r, by, plus, k, d, dweight, dbias, N, C, L, values,
    BN: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write factors by and plus (N, C), k and d (C,) of `gradient`, and the gradients of weight and bias."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    ta = tl.load(da + c, mask=cm, other=0.0)
    tb = tl.load(db + c, mask=cm, other=0.0)
    factor = tl.load(a + c, mask=cm, other=0.0)
    for n in range(0, N, BN):
        i = (n + tl.arange(0, BN)).to(tl.int64)
        at = i[:, None] * C + c[None, :]
        mask = (i < N)[:, None] & cm[None, :]
        e = tl.load(dz + at, mask=mask, other=0.0).to(tl.float32) / L
        tb += tl.sum(_product(e, tl.load(f0 + at, mask=mask, other=0.0)), 0)
        ta += tl.sum(_product(e, tl.load(f1 + at, mask=mask, other=0.0)), 0)
        gates = tl.load(s + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(by + at, gates * factor[None, :], mask=mask)
        tl.store(plus + at, e * factor[None, :], mask=mask)
    shift = tl.load(mean + c, mask=cm, other=0.0)
    scale_of = tl.load(r + c, mask=cm, other=0.0)
    ta -= shift * tb
    square = -0.5 * scale_of * scale_of * factor * ta
    tl.store(k + c, 2.0 * square / values, mask=cm)
    tl.store(d + c, (-factor * tb - 2.0 * shift * square) / values, mask=cm)
    tl.store(dweight + c, ta * scale_of, mask=cm)
    tl.store(dbias + c, tb, mask=cm)


@triton.jit
def gradient(
    g, y, dy, p, a, b, by, plus, k, d, C, L, rows, blocks, T, sn, sl, sc,
    ACTIVATION: tl.constexpr, LARGE: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read g and y, write dy = f (by g + plus) + k (y - p) + d."""
    n, i, c = locate_tile(rows, blocks, T, BL, BC, LARGE)
    cm = c < C
    pivot, factor, shift = _factors(p, a, b, c, cm)
    of_g = tl.load(by + n * C + c, mask=cm, other=0.0)
    more = tl.load(plus + n * C + c, mask=cm, other=0.0)
    of_y = tl.load(k + c, mask=cm, other=0.0)
    rest = tl.load(d + c, mask=cm, other=0.0)
    mask = (i < L)[:, None] & cm[None, :]
    at = n * sn + offsets(i, c, sl, sc, LARGE)
    x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - pivot[None, :]
    h = tl.load(g + at, mask=mask, other=0.0).to(tl.float32) * of_g[None, :] + more[None, :]
    h = activation_gradient(h, x * factor[None, :] + shift[None, :], ACTIVATION)
    h += x * of_y[None, :] + rest[None, :]
    tl.store(dy + at, h.to(dy.dtype.element_ty), mask=mask)
