# mypy: ignore-errors
# ruff: noqa: SIM102
"""Triton kernels between the passes over maps, forward: batch norm's statistics and the excitation.

`keep` is the only buffer that backward needs, float32, rows of C values and then of H:

    p, mean - p, a = r * weight, r = 1 / sqrt(var + eps)     4 rows of (C,)
    m - p, gate's pre-activations o                           2N rows, where there is an excitation
    hidden layer's pre-activations                            N rows of (H,)

Matrix products have float32 precision: tf32 in three passes, since tensor cores have no float32.
"""

import triton
import triton.language as tl

from senet.nn.fused.triton.gates import NAN, activate, vector

# The interpreter has no tf32.
PRECISION = tl.constexpr("ieee" if triton.knobs.runtime.interpret else "tf32x3")


@triton.jit
def pieces_of(part, i, s, c, N, S, C, VALUES: tl.constexpr):
    """Return pointers and mask of units s (SB,) of samples i (BN,): (BN, SB, BC), in part (units, VALUES, C)."""
    i, s, c = i[:, None, None], s[None, :, None], c[None, None, :]
    return part + (i * S + s) * VALUES * C + c, (i < N) & (s < S) & (c < C)


@triton.jit
def _deviations(part, p, i, s, c, N, C, S, per, L):
    """Return means less p and sums of squared deviations (BN, SB, BC), and pixel counts (1, SB, 1), of units."""
    at, mask = pieces_of(part, i, s, c, N, S, C, 3)
    e = (tl.load(at, mask=mask, other=0.0) - p[None, None, :]) + tl.load(at + C, mask=mask, other=0.0)
    pixels = tl.minimum(per, L - s * per).to(tl.float32)[None, :, None]
    return tl.where(mask, e, 0.0), tl.load(at + 2 * C, mask=mask, other=0.0), pixels


@triton.jit
def statistics(
    part, keep, rmean, rvar, c, leader, N, C, S, per, L, values,
    EVAL: tl.constexpr, GATED: tl.constexpr, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Return pivot, mean less the pivot, and variance, (BC,). The leader stores the means of samples."""
    cm = c < C
    p = tl.zeros([BC], tl.float32)
    mean = tl.zeros([BC], tl.float32)
    square = tl.zeros([BC], tl.float32)
    if EVAL:
        p = tl.load(rmean + c, mask=cm, other=0.0).to(tl.float32)
    else:
        zero = tl.zeros([BC], tl.float32)
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
                tl.store(keep + (4 + i)[:, None] * C + c[None, :], m, mask=(i < N)[:, None] & cm[None, :] & leader)
    mean = mean / N
    var = tl.maximum(square / values - mean * mean, 0.0, propagate_nan=NAN)
    if EVAL:
        mean = tl.zeros([BC], tl.float32)
        var = tl.load(rvar + c, mask=cm, other=0.0).to(tl.float32)
    return p, mean, var


@triton.jit
def _track(running, c, mask, new, value):
    old = tl.load(running + c, mask=mask, other=0.0).to(tl.float32)
    tl.store(running + c, ((1.0 - new) * old + new * value).to(running.dtype.element_ty), mask=mask)


@triton.jit
def _keep(
    keep, weight, rmean, rvar, count, p, mean, var, c, leader, C, eps, momentum, unbias,
    EVAL: tl.constexpr, CUMULATIVE: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Return a = weight / sqrt(var + eps). The leader stores keep's first rows and updates the running statistics."""
    mask = (c < C) & leader
    r = tl.div_rn(tl.full([BC], 1.0, tl.float32), tl.sqrt_rn(var + eps))
    a = r * vector(weight, c, c < C, 1.0, BC)
    tl.store(keep + c, p, mask=mask)
    tl.store(keep + C + c, mean, mask=mask)
    tl.store(keep + 2 * C + c, a, mask=mask)
    tl.store(keep + 3 * C + c, r, mask=mask)
    if not EVAL:
        if rmean is not None:
            new = momentum
            if CUMULATIVE:  # `stats` has incremented it
                new = 1.0 / tl.load(count).to(tl.float32)
            _track(rmean, c, mask, new, p + mean)
            _track(rvar, c, mask, new, var * unbias)
    return a


@triton.jit
def gather_stats(
    part, keep, weight, rmean, rvar, count, eps, momentum, N, C, S, per, L, values, unbias,
    EVAL: tl.constexpr, CUMULATIVE: tl.constexpr, GATED: tl.constexpr,
    BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Read part of `stats`, write the rows of keep before the excitation, and the running statistics.

    values is N L. CUMULATIVE averages over all batches instead of using a momentum. EVAL uses the running statistics
    instead of the batch's.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    p, mean, var = statistics(part, keep, rmean, rvar, c, True, N, C, S, per, L, values, EVAL, GATED, BN, SB, BC)
    _keep(keep, weight, rmean, rvar, count, p, mean, var, c, True, C, eps, momentum, unbias, EVAL, CUMULATIVE, BC)


@triton.jit
def squeezes(keep, bias, i, c, mask, cm, C, BC: tl.constexpr):
    """Return squeezes (BN, BC) of the normalized map."""
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    m = tl.load(keep + (4 + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
    return tl.where(mask, (m - mean[None, :]) * a[None, :] + vector(bias, c, cm, 0.0, BC)[None, :], 0.0)


@triton.jit
def weights(w, at, mask):
    """Load weights in float32."""
    return tl.load(w + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def add_up(pieces, at, mask, size, K: tl.constexpr):
    """Return the sum of K partial results of `size` values: `fc1` and `hidden` write one for each part of C."""
    x = tl.load(pieces + at, mask=mask, other=0.0)
    for k in tl.static_range(1, K):  # their loads are in flight together
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
        z = squeezes(keep, bias, i, c, (i < N)[:, None] & cm[None, :], cm, C, BK)
        w = weights(w1, h[None, :] * C + c[:, None], hm[None, :] & cm[:, None])
        x = tl.dot(z, w, x, input_precision=PRECISION)
    tl.store(pieces + k * N * H + i[:, None] * H + h[None, :], x, mask=(i < N)[:, None] & hm[None, :])


@triton.jit
def fc2(
    keep, pieces, b1, w2, b2, N, C, H, blocks,
    ACTIVATION: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write to keep the hidden layer's and the gate's pre-activations."""
    i = tl.program_id(0) // blocks * BN + tl.arange(0, BN)
    block = tl.program_id(0) % blocks
    c = block * BC + tl.arange(0, BC)
    cm = c < C
    o = tl.zeros([BN, BC], tl.float32)
    for start in tl.range(0, H, BK, num_stages=2):
        h = start + tl.arange(0, BK)
        hm = h < H
        at = i[:, None] * H + h[None, :]
        mask = (i < N)[:, None] & hm[None, :]
        x = add_up(pieces, at, mask, N * H, K) + vector(b1, h, hm, 0.0, BK)[None, :]
        if block == 0:
            tl.store(keep + (4 + 2 * N) * C + at, x, mask=mask)
        w = weights(w2, c[None, :] * H + h[:, None], hm[:, None] & cm[None, :])
        o = tl.dot(tl.where(mask, activate(x, ACTIVATION), 0.0), w, o, input_precision=PRECISION)
    o += vector(b2, c, cm, 0.0, BC)[None, :]
    tl.store(keep + (4 + N + i)[:, None] * C + c[None, :], o, mask=(i < N)[:, None] & cm[None, :])


@triton.jit
def excite(
    part, keep, weight, bias, rmean, rvar, count, w1, b1, w2, b2, eps, momentum, N, C, H, S, per, L, values, unbias,
    EVAL: tl.constexpr, CUMULATIVE: tl.constexpr, ACTIVATION: tl.constexpr,
    BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Run `gather_stats`, `fc1` and `fc2` as one kernel, for small N C.

    Each program takes 16 samples, and gathers the statistics of all samples.
    """
    first = tl.program_id(0) * 16
    i = first + tl.arange(0, 16)
    h = tl.arange(0, BH)
    hm = h < H
    leader = tl.program_id(0) == 0
    x = tl.zeros([16, BH], tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        cm = c < C
        p, mean, var = statistics(part, keep, rmean, rvar, c, leader, N, C, S, per, L, values, EVAL, True, BN, SB, BC)
        a = _keep(
            keep, weight, rmean, rvar, count, p, mean, var, c, leader, C, eps, momentum, unbias, EVAL, CUMULATIVE, BC
        )
        m = tl.zeros([16, BC], tl.float32)
        for s in range(S):
            e, _, pixels = _deviations(part, p, i, s + tl.arange(0, 1), c, N, C, S, per, L)
            m += tl.sum(e * pixels, 1)
        z = (m / L - mean[None, :]) * a[None, :] + vector(bias, c, cm, 0.0, BC)[None, :]
        z = tl.where((i < N)[:, None] & cm[None, :], z, 0.0)
        w = weights(w1, h[None, :] * C + c[:, None], hm[None, :] & cm[:, None])
        x = tl.dot(z, w, x, input_precision=PRECISION)
    x += vector(b1, h, hm, 0.0, BH)[None, :]
    mask = (i < N)[:, None] & hm[None, :]
    tl.store(keep + (4 + 2 * N) * C + i[:, None] * H + h[None, :], x, mask=mask)
    x = tl.where(mask, activate(x, ACTIVATION), 0.0)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        cm = c < C
        w = weights(w2, c[None, :] * H + h[:, None], hm[:, None] & cm[None, :])
        o = tl.dot(x, w, input_precision=PRECISION) + vector(b2, c, cm, 0.0, BC)[None, :]
        tl.store(keep + (4 + N + i)[:, None] * C + c[None, :], o, mask=(i < N)[:, None] & cm[None, :])
