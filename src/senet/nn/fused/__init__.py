"""Batch norm with SE, and the sum and ReLU behind it, in as many passes over feature maps as batch norm alone."""

from senet.nn.fused.autograd import evaluate, train, train_plain
from senet.nn.fused.backends import fused_by, fused_choice, set_fused
from senet.nn.fused.blocks import is_plain, is_watched
from senet.nn.fused.operands import Running
from senet.nn.fused.operations import can_fuse, count_batch, normalise
from senet.nn.fused.reference import unsqueeze_spatial

__all__ = [
    "Running",
    "can_fuse",
    "count_batch",
    "evaluate",
    "fused_by",
    "fused_choice",
    "is_plain",
    "is_watched",
    "normalise",
    "set_fused",
    "train",
    "train_plain",
    "unsqueeze_spatial",
]

if fused_choice() == "triton":
    import senet.nn.fused.custom_ops  # noqa: F401  (as `set_fused` does)
