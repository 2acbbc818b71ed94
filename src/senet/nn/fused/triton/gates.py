# mypy: ignore-errors
# ruff: noqa: RET505  # Triton compiles no early return
"""Functions of several Triton kernels: gates and activations with their gradients, and optional vectors.

NaN and Inf propagate as in PyTorch's own operations: `tl.maximum` alone would drop NaN.
"""

import triton
import triton.language as tl

NAN = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def vector(x, at, mask, default: tl.constexpr, LENGTH: tl.constexpr):
    """Load (LENGTH,) values of x at offsets, in float32; `default` where x is None."""
    if x is None:
        return tl.full([LENGTH], default, tl.float32)
    else:
        return tl.load(x + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    # (1 - e) / (1 + e) loses digits near 0, where a few terms of the series suffice.
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    square = x * x
    near = x * (1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
    return tl.where(tl.abs(x) < 0.3, near, tl.where(x < 0.0, -far, far))


@triton.jit
def gate(o, gain, GATE: tl.constexpr):
    """Return the gate values of pre-activations o, times the gain."""
    if GATE == "sigmoid":
        s = _sigmoid(o)
    elif GATE == "hard_sigmoid":
        s = tl.minimum(tl.maximum(o + 3.0, 0.0, propagate_nan=NAN), 6.0, propagate_nan=NAN) / 6.0
    elif GATE == "tanh":
        s = _tanh(o)
    else:
        tl.static_assert(GATE == "relu")
        s = tl.maximum(o, 0.0, propagate_nan=NAN)
    return gain * s


@triton.jit
def gate_gradient(ds, o, gain, GATE: tl.constexpr):
    """Return the gradient of pre-activations o, from the gradient ds of the gate times the gain."""
    ds = gain * ds
    if GATE == "sigmoid":
        s = _sigmoid(o)
        do = ds * s * (1.0 - s)
    elif GATE == "hard_sigmoid":
        do = tl.where((o > -3.0) & (o < 3.0), ds / 6.0, 0.0)
    elif GATE == "tanh":
        s = _tanh(o)
        do = ds * (1.0 - s * s)
    else:
        tl.static_assert(GATE == "relu")
        do = tl.where(o <= 0.0, 0.0, ds)
    return do


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """Return the activation of x."""
    if ACTIVATION == "silu":
        y = x / (1.0 + tl.exp(-x))
    elif ACTIVATION == "hard_swish":
        y = x * (tl.minimum(tl.maximum(x + 3.0, 0.0, propagate_nan=NAN), 6.0, propagate_nan=NAN) / 6.0)
    elif ACTIVATION == "relu6":
        y = tl.minimum(tl.maximum(x, 0.0, propagate_nan=NAN), 6.0, propagate_nan=NAN)
    else:
        tl.static_assert(ACTIVATION == "relu")
        y = tl.maximum(x, 0.0, propagate_nan=NAN)
    return y


@triton.jit
def activation_gradient(g, x, ACTIVATION: tl.constexpr):
    """Return the gradient of pre-activations x, from the gradient g of the activation's outputs."""
    if ACTIVATION == "silu":
        s = _sigmoid(x)
        dx = g * s * (1.0 + x * (1.0 - s))
    elif ACTIVATION == "hard_swish":
        dx = tl.where(x <= -3.0, 0.0, tl.where(x < 3.0, g * (x / 3.0 + 0.5), g))
    elif ACTIVATION == "relu6":
        dx = tl.where((x <= 0.0) | (x >= 6.0), 0.0, g)
    else:
        tl.static_assert(ACTIVATION == "relu")
        dx = tl.where(x <= 0.0, 0.0, g)
    return dx
