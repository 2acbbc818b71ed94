"""Training with several processes: rendezvous, devices, data parallelism, and errors reported once.

Imports `senet.nn` and `senet.utils`. Only `senet.training` and the command line use it.
"""

__all__: list[str] = []
