"""Deploy networks: rewrite them exactly for inference, export them, and run the exported files.

Imports `senet.evaluation`, `senet.costs` and below, not `senet.gates`. `senet.benchmark` and the command line use it.
"""

from senet.deployment.deploy import deploy
from senet.deployment.engines import ExportedNetwork, load_exported
from senet.deployment.report import DeployReport

__all__ = ["DeployReport", "ExportedNetwork", "deploy", "load_exported"]
