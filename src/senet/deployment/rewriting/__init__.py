"""Rewrite networks exactly for inference: fold batch norms, squeeze before 1x1 convolutions, write SE as plain layers.

Imports `senet.graph`, `senet.insertion`, `senet.nn` and `senet.utils`. `senet.deploy` and `senet.export` use it.
"""

from senet.deployment.rewriting.forms import FORMS, EngineName, Forms, fixed_forms
from senet.deployment.rewriting.rewrite import rewrite

__all__ = ["FORMS", "EngineName", "Forms", "fixed_forms", "rewrite"]
