"""Export networks to ONNX, OpenVINO and torch.export files, compared with PyTorch before they appear.

Imports `senet.deployment.rewriting`, `engines`, `quantization` and below. The command line uses it.
"""

from senet.deployment.export.export import export
from senet.deployment.export.export_report import Comparison, ExportReport

__all__ = ["Comparison", "ExportReport", "export"]
