"""Model files: one safetensors file with weights, SE, and what is needed to load them: save, load.

Imports `senet.insertion`, `senet.models` and `senet.weights`; `senet.training`, `senet.hub` and the command line import
it.
"""

from senet.model_file.file_format import FORMAT
from senet.model_file.loading import holds_se_only, is_model_file, load, requires_network
from senet.model_file.saving import describe, save

__all__ = ["FORMAT", "describe", "holds_se_only", "is_model_file", "load", "requires_network", "save"]
