"""Parts for other libraries, one module for each; a module needs its library.

Imports `senet.gates` and below. Nothing in senet imports it.
"""

__all__: list[str] = []
