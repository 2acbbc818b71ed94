# mypy: ignore-errors
# ruff: noqa: SIM102, SIM108
"""Triton kernels between those that read maps: batch norm's statistics and the excitation, forward and backward.

`keep` is the one buffer that backward needs, in float32, rows of C values and then of H:

    p, mean - p, a = r * weight, r = 1 / sqrt(var + eps)     4 rows of (C,)
    m - p, gate's pre-activations o                           2N rows, where there is an excitation
    hidden layer's pre-activations                            N rows of (H,)

`work` is backward's: sum s t, sum s q, k, d of all samples (4 rows), and dz, do (2N rows), with t and q (N, C) the sums
over space of g and of g (y - mean). Matrix products are in float32 too: tf32 in three passes, as tensor cores have no
other.
"""

import triton
import triton.language as tl

from senet.fusion.triton_gates import NAN, activate, activation_gradient, gate, gate_gradient, vector

# The interpreter knows no tf32.
PRECISION = tl.constexpr("ieee" if triton.knobs.runtime.interpret else "tf32x3")


@triton.jit
def _pieces(part, i, s, c, N, S, C, VALUES: tl.constexpr):
    """Pointers and mask of units s (SB,) of samples i (BN,): (BN, SB, BC), in part (units, VALUES, C)."""
    i, s, c = i[:, None, None], s[None, :, None], c[None, None, :]
    return part + (i * S + s) * VALUES * C + c, (i < N) & (s < S) & (c < C)


@triton.jit
def _deviations(part, p, i, s, c, N, C, S, per, L):
    """Means less p, sums of squared deviations and numbers of pixels of units: (BN, SB, BC), twice, and (1, SB, 1)."""
    at, mask = _pieces(part, i, s, c, N, S, C, 3)
    e = (tl.load(at, mask=mask, other=0.0) - p[None, None, :]) + tl.load(at + C, mask=mask, other=0.0)
    pixels = tl.minimum(per, L - s * per).to(tl.float32)[None, :, None]
    return tl.where(mask, e, 0.0), tl.load(at + 2 * C, mask=mask, other=0.0), pixels


@triton.jit
def settle(
    part, keep, weight, rmean, rvar, count, N, C, S, per, L, values, eps, momentum, unbias,
    EVAL: tl.constexpr, GATED: tl.constexpr, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read part of `stats`, write keep but for the excitation, and the running statistics.

    values is N L; momentum None takes the cumulative average, by `count`, which `stats` has incremented. EVAL takes
    the running statistics instead of the batch's.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    zero = tl.zeros([BC], tl.float32)
    p, mean, square = zero, zero, zero
    if EVAL:
        p = tl.load(rmean + c, mask=cm, other=0.0).to(tl.float32)
    else:
        for n in range(0, N, BN):
            for s in range(0, S, SB):
                e, q, pixels = _deviations(part, zero, n + tl.arange(0, BN), s + tl.arange(0, SB), c, N, C, S, per, L)
                p += tl.sum(tl.sum(e * (pixels / values), 1), 0)
        p = tl.where(tl.abs(p) < float("inf"), p, 0.0)
    if GATED or not EVAL:
        for n in range(0, N, BN):
            i = n + tl.arange(0, BN)
            m = tl.zeros([BN, BC], tl.float32)
            for s in range(0, S, SB):
                e, q, pixels = _deviations(part, p, i, s + tl.arange(0, SB), c, N, C, S, per, L)
                m += tl.sum(e * pixels, 1)
                square += tl.sum(tl.sum(q + e * e * pixels, 1), 0)
            m = m / L
            mean += tl.sum(m, 0)
            if GATED:
                tl.store(keep + (4 + i)[:, None] * C + c[None, :], m, mask=(i < N)[:, None] & cm[None, :])
    if EVAL:
        mean = zero
        var = tl.load(rvar + c, mask=cm, other=0.0).to(tl.float32)
    else:
        mean = mean / N
        var = tl.maximum(square / values - mean * mean, 0.0, propagate_nan=NAN)
        if rmean is not None:
            if momentum is None:
                new = 1.0 / tl.load(count).to(tl.float32)
            else:
                new = momentum
            old = tl.load(rmean + c, mask=cm, other=0.0).to(tl.float32)
            tl.store(rmean + c, ((1.0 - new) * old + new * (p + mean)).to(rmean.dtype.element_ty), mask=cm)
            old = tl.load(rvar + c, mask=cm, other=0.0).to(tl.float32)
            tl.store(rvar + c, ((1.0 - new) * old + new * (var * unbias)).to(rvar.dtype.element_ty), mask=cm)
    r = tl.div_rn(1.0 + zero, tl.sqrt_rn(var + eps))
    tl.store(keep + c, p, mask=cm)
    tl.store(keep + C + c, mean, mask=cm)
    tl.store(keep + 2 * C + c, r * vector(weight, c, cm, 1.0, BC), mask=cm)
    tl.store(keep + 3 * C + c, r, mask=cm)


@triton.jit
def _z(keep, bias, i, c, mask, cm, C, BC: tl.constexpr):
    """(BN, BC) squeezes of the normalised map."""
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    m = tl.load(keep + (4 + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
    return tl.where(mask, (m - mean[None, :]) * a[None, :] + vector(bias, c, cm, 0.0, BC)[None, :], 0.0)


@triton.jit
def _weights(w, at, mask):
    return tl.load(w + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _add_up(pieces, at, mask, K, size):
    """Sum of K pieces, each of `size` values: what `fc1` and `hidden` find for a part of the channels each."""
    x = tl.load(pieces + at, mask=mask, other=0.0)
    for k in range(1, K):
        x += tl.load(pieces + k * size + at, mask=mask, other=0.0)
    return x


@triton.jit
def fc1(keep, bias, w1, pieces, N, C, H, tiles, per, BN: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr):
    """Write pieces (K, N, H): z w1^T over `per` channels for each of K programs."""
    i = tl.program_id(0) // tiles * BN + tl.arange(0, BN)
    h = tl.program_id(0) % tiles * BH + tl.arange(0, BH)
    k = tl.program_id(1)
    hm = h < H
    x = tl.zeros([BN, BH], tl.float32)
    for start in range(k * per, tl.minimum(k * per + per, C), BK):
        c = start + tl.arange(0, BK)
        cm = c < C
        z = _z(keep, bias, i, c, (i < N)[:, None] & cm[None, :], cm, C, BK)
        w = _weights(w1, h[None, :] * C + c[:, None], hm[None, :] & cm[:, None])
        x = tl.dot(z, w, x, input_precision=PRECISION)
    tl.store(pieces + k * N * H + i[:, None] * H + h[None, :], x, mask=(i < N)[:, None] & hm[None, :])


@triton.jit
def fc2(
    keep, pieces, b1, w2, b2, N, C, H, K, blocks,
    ACTIVATION: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write to keep the hidden layer's and the gate's pre-activations."""
    i = tl.program_id(0) // blocks * BN + tl.arange(0, BN)
    block = tl.program_id(0) % blocks
    c = block * BC + tl.arange(0, BC)
    cm = c < C
    o = tl.zeros([BN, BC], tl.float32)
    for start in range(0, H, BK):
        h = start + tl.arange(0, BK)
        hm = h < H
        at = i[:, None] * H + h[None, :]
        mask = (i < N)[:, None] & hm[None, :]
        x = _add_up(pieces, at, mask, K, N * H) + vector(b1, h, hm, 0.0, BK)[None, :]
        if block == 0:
            tl.store(keep + (4 + 2 * N) * C + at, x, mask=mask)
        w = _weights(w2, c[None, :] * H + h[:, None], hm[:, None] & cm[None, :])
        o = tl.dot(tl.where(mask, activate(x, ACTIVATION), 0.0), w, o, input_precision=PRECISION)
    o += vector(b2, c, cm, 0.0, BC)[None, :]
    tl.store(keep + (4 + N + i)[:, None] * C + c[None, :], o, mask=(i < N)[:, None] & cm[None, :])


@triton.jit
def _totals(part, mean, i, c, N, C, S, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr):
    """(BN, BC) sums t of g and q of g (y - mean) over space, from part of `reduce`."""
    t = tl.zeros([BN, BC], tl.float32)
    q = tl.zeros([BN, BC], tl.float32)
    for s in range(0, S, SB):
        at, mask = _pieces(part, i, s + tl.arange(0, SB), c, N, S, C, 2)
        t += tl.sum(tl.load(at, mask=mask, other=0.0), 1)
        q += tl.sum(tl.load(at + C, mask=mask, other=0.0), 1)
    return t, q - mean[None, :] * t


@triton.jit
def gates(
    part, keep, bias, work, dw2, db2, gain, N, C, H, S, GATE: tl.constexpr, ACTIVATION: tl.constexpr,
    BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Read part of `reduce`, write do and the gradients of the second layer, and sum s t and sum s q to work."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    h = tl.arange(0, BH)
    hm = h < H
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    b = vector(bias, c, cm, 0.0, BC)
    total = tl.zeros([BC], tl.float32)
    products = tl.zeros([BC], tl.float32)
    db = tl.zeros([BC], tl.float32)
    dw = tl.zeros([BC, BH], tl.float32)
    for n in range(0, N, BN):
        i = n + tl.arange(0, BN)
        mask = (i < N)[:, None] & cm[None, :]
        t, q = _totals(part, mean, i, c, N, C, S, BN, SB, BC)
        o = tl.load(keep + (4 + N + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
        s = tl.where(mask, gate(o, gain, GATE), 0.0)
        do = tl.where(mask, gate_gradient(a[None, :] * q + b[None, :] * t, o, gain, GATE), 0.0)
        tl.store(work + (4 + N + i)[:, None] * C + c[None, :], do, mask=mask)
        total += tl.sum(s * t, 0)
        products += tl.sum(s * q, 0)
        db += tl.sum(do, 0)
        if dw2 is not None:
            hidden_mask = (i < N)[:, None] & hm[None, :]
            x = tl.load(keep + (4 + 2 * N) * C + i[:, None] * H + h[None, :], mask=hidden_mask, other=0.0)
            x = tl.where(hidden_mask, activate(x, ACTIVATION), 0.0)
            dw = tl.dot(tl.trans(do), x, dw, input_precision=PRECISION)
    tl.store(work + c, total, mask=cm)
    tl.store(work + C + c, products, mask=cm)
    if db2 is not None:
        tl.store(db2 + c, db.to(db2.dtype.element_ty), mask=cm)
    if dw2 is not None:
        tl.store(dw2 + c[:, None] * H + h[None, :], dw.to(dw2.dtype.element_ty), mask=cm[:, None] & hm[None, :])


@triton.jit
def hidden(work, w2, pieces, N, C, H, tiles, per, BN: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr):
    """Write pieces (K, N, H): do w2 over `per` channels for each of K programs."""
    i = tl.program_id(0) // tiles * BN + tl.arange(0, BN)
    h = tl.program_id(0) % tiles * BH + tl.arange(0, BH)
    k = tl.program_id(1)
    hm = h < H
    x = tl.zeros([BN, BH], tl.float32)
    for start in range(k * per, tl.minimum(k * per + per, C), BK):
        c = start + tl.arange(0, BK)
        cm = c < C
        mask = (i < N)[:, None] & cm[None, :]
        do = tl.load(work + (4 + N + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
        w = _weights(w2, c[:, None] * H + h[None, :], hm[None, :] & cm[:, None])
        x = tl.dot(do, w, x, input_precision=PRECISION)
    tl.store(pieces + k * N * H + i[:, None] * H + h[None, :], x, mask=(i < N)[:, None] & hm[None, :])


@triton.jit
def _store_coefficients(work, dweight, dbias, total, products, dz_sum, dz_m, mean, a, r, c, cm, N, C, values):
    """Store k and d, with which dy = s a g + k (y - p) + (d + a dz) / L, and batch norm's gradients."""
    da = products + dz_m
    dsquare = -0.5 * r * r * a * da
    dmean = -a * (total + dz_sum) - 2.0 * mean * dsquare
    tl.store(work + 2 * C + c, 2.0 * dsquare / values, mask=cm)
    tl.store(work + 3 * C + c, dmean / N, mask=cm)
    if dweight is not None:
        tl.store(dweight + c, (da * r).to(dweight.dtype.element_ty), mask=cm)
    if dbias is not None:
        tl.store(dbias + c, (total + dz_sum).to(dbias.dtype.element_ty), mask=cm)


@triton.jit
def coefficients(
    work, keep, bias, pieces, w1, dw1, db1, dweight, dbias, N, C, H, K, values, ACTIVATION: tl.constexpr,
    BN: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Write to work dz and the coefficients of dy, and the gradients of the first layer and of batch norm."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    h = tl.arange(0, BH)
    hm = h < H
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    w = _weights(w1, h[:, None] * C + c[None, :], hm[:, None] & cm[None, :])
    dz_sum = tl.zeros([BC], tl.float32)
    dz_m = tl.zeros([BC], tl.float32)
    dw = tl.zeros([BH, BC], tl.float32)
    db = tl.zeros([BH], tl.float32)
    for n in range(0, N, BN):
        i = n + tl.arange(0, BN)
        mask = (i < N)[:, None] & cm[None, :]
        at = i[:, None] * H + h[None, :]
        hidden_mask = (i < N)[:, None] & hm[None, :]
        x = tl.load(keep + (4 + 2 * N) * C + at, mask=hidden_mask, other=0.0)
        dx = activation_gradient(_add_up(pieces, at, hidden_mask, K, N * H), x, ACTIVATION)
        dx = tl.where(hidden_mask, dx, 0.0)
        dz = tl.dot(dx, w, input_precision=PRECISION)
        tl.store(work + (4 + i)[:, None] * C + c[None, :], dz, mask=mask)
        m = tl.load(keep + (4 + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
        dz_sum += tl.sum(dz, 0)
        dz_m += tl.sum(dz * (m - mean[None, :]), 0)
        if dw1 is not None:
            dw = tl.dot(tl.trans(dx), _z(keep, bias, i, c, mask, cm, C, BC), dw, input_precision=PRECISION)
        if db1 is not None:
            db += tl.sum(dx, 0)
    if dw1 is not None:
        tl.store(dw1 + h[:, None] * C + c[None, :], dw.to(dw1.dtype.element_ty), mask=hm[:, None] & cm[None, :])
    if db1 is not None:
        if tl.program_id(0) == 0:
            tl.store(db1 + h, db.to(db1.dtype.element_ty), mask=hm)
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    r = tl.load(keep + 3 * C + c, mask=cm, other=0.0)
    total = tl.load(work + c, mask=cm, other=0.0)
    products = tl.load(work + C + c, mask=cm, other=0.0)
    _store_coefficients(work, dweight, dbias, total, products, dz_sum, dz_m, mean, a, r, c, cm, N, C, values)


@triton.jit
def plain_coefficients(
    part, work, keep, dweight, dbias, N, C, S, values, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr
):
    """Write the coefficients of dy and the gradients of a batch norm without an excitation."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    total = tl.zeros([BC], tl.float32)
    products = tl.zeros([BC], tl.float32)
    for n in range(0, N, BN):
        t, q = _totals(part, mean, n + tl.arange(0, BN), c, N, C, S, BN, SB, BC)
        total += tl.sum(t, 0)
        products += tl.sum(q, 0)
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    r = tl.load(keep + 3 * C + c, mask=cm, other=0.0)
    zero = tl.zeros([BC], tl.float32)
    _store_coefficients(work, dweight, dbias, total, products, zero, zero, mean, a, r, c, cm, N, C, values)
