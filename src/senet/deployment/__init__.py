"""Deploy networks: rewrite them exactly for inference, export them, and run the exported files.

Imports `senet.evaluation`, `senet.costs` and below, not `senet.gates`. `senet.benchmark` and the command line use it.
"""

__all__: list[str] = []
