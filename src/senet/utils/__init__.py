"""Helpers without knowledge of SE: errors, files, sizes, limits, figures, modes and CUDA graphs.

Imports nothing else of `senet`. Every other package may import it.
"""

__all__: list[str] = []
