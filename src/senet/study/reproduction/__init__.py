"""The paper's tables alongside what was measured, and the commands that measure the rest.

Imports `senet.study.report`. The command line and the documentation use it.
"""

from senet.study.reproduction.page import as_markdown
from senet.study.reproduction.reproduction import reproduce
from senet.study.reproduction.rows import Measured, RelatedArm, Reproduction, Row

__all__ = [
    "Measured",
    "RelatedArm",
    "Reproduction",
    "Row",
    "as_markdown",
    "reproduce",
]
