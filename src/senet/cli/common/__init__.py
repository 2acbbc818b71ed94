"""What several commands share: options, opened networks and data, outputs, tables, progress and errors.

Imports every other package. Only `senet.cli` uses it.
"""

__all__: list[str] = []
