# mypy: ignore-errors
# ruff: noqa: SIM102
"""Triton kernels between the passes over maps, backward: gradients of the excitation and of batch norm.

`work` is a float32 buffer, rows of C values and then of H:

    sum s t, sum s q, k, d                 4 rows of (C,), of all samples
    dz, do                                 2N rows: gradients of the squeeze and of the gate's pre-activations
    parts of the hidden layer's gradients  K times N rows of (H,)

with t and q (N, C) the sums over space of g and of g (y - mean), and dy = s a g + k (y - p) + (d + a dz) / L.
For `keep` see `triton.excitation`.
"""

import triton
import triton.language as tl

from senet.nn.fused.triton.excitation import PRECISION, add_up, pieces_of, squeezes, weights
from senet.nn.fused.triton.gates import activate, activation_gradient, gate, gate_gradient, vector


@triton.jit
def _totals(part, mean, i, c, N, C, S, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr):
    """Return sums over space (BN, BC), t of g and q of g (y - mean), from part of `reduce`."""
    t = tl.zeros([BN, BC], tl.float32)
    q = tl.zeros([BN, BC], tl.float32)
    for s in range(0, S, SB):
        at, mask = pieces_of(part, i, s + tl.arange(0, SB), c, N, S, C, 2)
        t += tl.sum(tl.load(at, mask=mask, other=0.0), 1)
        q += tl.sum(tl.load(at + C, mask=mask, other=0.0), 1)
    return t, q - mean[None, :] * t


@triton.jit
def _gate_gradients(
    part, keep, mean, a, b, i, c, mask, gain, N, C, S,
    GATE: tl.constexpr, BN: tl.constexpr, SB: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Return gates s, sums t and q, and gradients do of the gates' pre-activations, (BN, BC)."""
    t, q = _totals(part, mean, i, c, N, C, S, BN, SB, BC)
    o = tl.load(keep + (4 + N + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
    do = gate_gradient(a[None, :] * q + b[None, :] * t, o, gain, GATE)
    return tl.where(mask, gate(o, gain, GATE), 0.0), t, q, tl.where(mask, do, 0.0)


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
        s, t, q, do = _gate_gradients(part, keep, mean, a, b, i, c, mask, gain, N, C, S, GATE, BN, SB, BC)
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
def hidden(work, w2, N, C, H, tiles, per, BN: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr):
    """Write parts (K, N, H) of do w2: over `per` channels for each of K programs."""
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
        w = weights(w2, c[:, None] * H + h[None, :], hm[None, :] & cm[:, None])
        x = tl.dot(do, w, x, input_precision=PRECISION)
    pieces = work + (4 + 2 * N) * C + k * N * H
    tl.store(pieces + i[:, None] * H + h[None, :], x, mask=(i < N)[:, None] & hm[None, :])


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
    work, keep, bias, w1, dw1, db1, dweight, dbias, N, C, H, values,
    ACTIVATION: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Write to work dz and the coefficients of dy, and the gradients of the first layer and of batch norm."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    h = tl.arange(0, BH)
    hm = h < H
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    w = weights(w1, h[:, None] * C + c[None, :], hm[:, None] & cm[None, :])
    dz_sum = tl.zeros([BC], tl.float32)
    dz_m = tl.zeros([BC], tl.float32)
    dw = tl.zeros([BH, BC], tl.float32)
    db = tl.zeros([BH], tl.float32)
    for n in tl.range(0, N, BN, num_stages=2):
        i = n + tl.arange(0, BN)
        mask = (i < N)[:, None] & cm[None, :]
        at = i[:, None] * H + h[None, :]
        hidden_mask = (i < N)[:, None] & hm[None, :]
        x = tl.load(keep + (4 + 2 * N) * C + at, mask=hidden_mask, other=0.0)
        dx = activation_gradient(add_up(work + (4 + 2 * N) * C, at, hidden_mask, N * H, K), x, ACTIVATION)
        dx = tl.where(hidden_mask, dx, 0.0)
        dz = tl.dot(dx, w, input_precision=PRECISION)
        tl.store(work + (4 + i)[:, None] * C + c[None, :], dz, mask=mask)
        m = tl.load(keep + (4 + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
        dz_sum += tl.sum(dz, 0)
        dz_m += tl.sum(dz * (m - mean[None, :]), 0)
        if dw1 is not None:
            dw = tl.dot(tl.trans(dx), squeezes(keep, bias, i, c, mask, cm, C, BC), dw, input_precision=PRECISION)
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


@triton.jit
def excite_backward(
    part, keep, bias, work, w1, w2, dw1, db1, dw2, db2, dweight, dbias, gain, N, C, H, S, values,
    GATE: tl.constexpr, ACTIVATION: tl.constexpr,
    BN: tl.constexpr, SB: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Run `gates`, `hidden` and `coefficients` as one kernel, for small N C.

    Each program computes the hidden layer's gradients.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    cm = c < C
    h = tl.arange(0, BH)
    hm = h < H
    mean = tl.load(keep + C + c, mask=cm, other=0.0)
    a = tl.load(keep + 2 * C + c, mask=cm, other=0.0)
    b = vector(bias, c, cm, 0.0, BC)
    w = weights(w1, h[:, None] * C + c[None, :], hm[:, None] & cm[None, :])
    total = tl.zeros([BC], tl.float32)
    products = tl.zeros([BC], tl.float32)
    dz_sum = tl.zeros([BC], tl.float32)
    dz_m = tl.zeros([BC], tl.float32)
    do_sum = tl.zeros([BC], tl.float32)
    dx_sum = tl.zeros([BH], tl.float32)
    dw_first = tl.zeros([BH, BC], tl.float32)
    dw_second = tl.zeros([BC, BH], tl.float32)
    for n in range(0, N, BN):
        i = n + tl.arange(0, BN)
        dx = tl.zeros([BN, BH], tl.float32)
        for start in range(0, C, BK):
            k = start + tl.arange(0, BK)
            km = k < C
            mask = (i < N)[:, None] & km[None, :]
            k_mean = tl.load(keep + C + k, mask=km, other=0.0)
            k_a = tl.load(keep + 2 * C + k, mask=km, other=0.0)
            k_b = vector(bias, k, km, 0.0, BK)
            s, t, q, do = _gate_gradients(part, keep, k_mean, k_a, k_b, i, k, mask, gain, N, C, S, GATE, BN, SB, BK)
            dx = tl.dot(
                do, weights(w2, k[:, None] * H + h[None, :], hm[None, :] & km[:, None]), dx, input_precision=PRECISION
            )
        hidden_mask = (i < N)[:, None] & hm[None, :]
        x = tl.load(keep + (4 + 2 * N) * C + i[:, None] * H + h[None, :], mask=hidden_mask, other=0.0)
        dx = tl.where(hidden_mask, activation_gradient(dx, x, ACTIVATION), 0.0)
        x = tl.where(hidden_mask, activate(x, ACTIVATION), 0.0)
        mask = (i < N)[:, None] & cm[None, :]
        s, t, q, do = _gate_gradients(part, keep, mean, a, b, i, c, mask, gain, N, C, S, GATE, BN, SB, BC)
        dz = tl.dot(dx, w, input_precision=PRECISION)
        tl.store(work + (4 + i)[:, None] * C + c[None, :], dz, mask=mask)
        m = tl.load(keep + (4 + i)[:, None] * C + c[None, :], mask=mask, other=0.0)
        total += tl.sum(s * t, 0)
        products += tl.sum(s * q, 0)
        dz_sum += tl.sum(dz, 0)
        dz_m += tl.sum(dz * (m - mean[None, :]), 0)
        do_sum += tl.sum(do, 0)
        dx_sum += tl.sum(dx, 0)
        if dw2 is not None:
            dw_second = tl.dot(tl.trans(do), x, dw_second, input_precision=PRECISION)
        if dw1 is not None:
            z = squeezes(keep, bias, i, c, mask, cm, C, BC)
            dw_first = tl.dot(tl.trans(dx), z, dw_first, input_precision=PRECISION)
    if dw1 is not None:
        tl.store(dw1 + h[:, None] * C + c[None, :], dw_first.to(dw1.dtype.element_ty), mask=hm[:, None] & cm[None, :])
    if dw2 is not None:
        tl.store(dw2 + c[:, None] * H + h[None, :], dw_second.to(dw2.dtype.element_ty), mask=cm[:, None] & hm[None, :])
    if db2 is not None:
        tl.store(db2 + c, do_sum.to(db2.dtype.element_ty), mask=cm)
    if db1 is not None:
        if tl.program_id(0) == 0:
            tl.store(db1 + h, dx_sum.to(db1.dtype.element_ty), mask=hm)
    r = tl.load(keep + 3 * C + c, mask=cm, other=0.0)
    _store_coefficients(work, dweight, dbias, total, products, dz_sum, dz_m, mean, a, r, c, cm, N, C, values)
