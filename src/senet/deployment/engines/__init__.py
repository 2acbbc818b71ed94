"""Run exported files as PyTorch modules: ONNX Runtime, OpenVINO and torch.export behind one interface.

`load_exported` chooses the engine by the suffix of the file. The command line and `senet.benchmark` use it.
"""

from senet.deployment.engines.engine import Engine, Port
from senet.deployment.engines.exported_network import ExportedNetwork, is_exported, load_exported

__all__ = ["Engine", "ExportedNetwork", "Port", "is_exported", "load_exported"]
