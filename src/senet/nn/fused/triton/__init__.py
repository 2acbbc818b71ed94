"""The fused operation (`whole_operation.py`) and passes (`passes.py`) as Triton kernels for NVIDIA GPUs.

Imported only when a GPU uses them. Imports `senet.nn.fused` and `senet.utils`; only `senet.nn.fused` imports it.
"""

__all__: list[str] = []
