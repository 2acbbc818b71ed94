"""The SE block, batch norm with SE, and SE attached to any module.

The paper's equations are in `block.py`, the forward pass of batch norm with SE in `batch_norm_forward.py`, fused passes
and kernels in `fused/`. Imports `senet.utils`; every package above may import it.
"""

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.batch_norm_utils import convert_sync_batchnorm, freeze_batch_norm, update_bn
from senet.nn.block import SqueezeExcitation
from senet.nn.fused import set_fused

__all__ = [
    "SEBatchNorm",
    "SqueezeExcitation",
    "convert_sync_batchnorm",
    "freeze_batch_norm",
    "set_fused",
    "update_bn",
]
