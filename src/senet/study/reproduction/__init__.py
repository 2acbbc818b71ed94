"""The paper's tables alongside what was measured, and the commands that measure the rest.

Imports `senet.study.report`. The command line and the documentation use it.
"""

from senet.study.reproduction.reproduction import Reproduction, reproduce

__all__ = [
    "Reproduction",
    "reproduce",
]
