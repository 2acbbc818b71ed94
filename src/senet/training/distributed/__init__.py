"""Training with several processes: rendezvous, GPUs, data parallelism, and errors reported once across ranks.

Imports `senet.recipes`, `senet.nn`, `senet.utils`, and devices, determinism and signals of `senet.training`. Only
`senet.training` and the command line import it, by module.
"""

__all__: list[str] = []
