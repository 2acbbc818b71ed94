"""Plain networks, and the table of named networks, plain and with SE.

One module for each architecture, rows in `table.py`. Imports `senet.weights`, `senet.insertion`, `senet.nn` and
`senet.utils`; the layers above import it.
"""

from senet.models.base import Classifier
from senet.models.bn_inception import BNInception, BNInceptionSpec
from senet.models.create import build_plain, create_model
from senet.models.detection import DetectorSpec, apply_preprocessing, freeze_backbone
from senet.models.detector_names import is_detector
from senet.models.features import features_of
from senet.models.libraries import LibrarySpec, is_of_library, names_file
from senet.models.resnet import ResNet, ResNetSpec
from senet.models.shake_shake import ShakeShake, ShakeShakeSpec
from senet.models.shufflenet import ShuffleNet, ShuffleNetSpec
from senet.models.table import CATALOGUE, Network, list_models, network, plain_name
from senet.models.units import PadShortcut, PostActivationUnit, PreActivationUnit

__all__ = [
    "CATALOGUE",
    "BNInception",
    "BNInceptionSpec",
    "Classifier",
    "DetectorSpec",
    "LibrarySpec",
    "Network",
    "PadShortcut",
    "PostActivationUnit",
    "PreActivationUnit",
    "ResNet",
    "ResNetSpec",
    "ShakeShake",
    "ShakeShakeSpec",
    "ShuffleNet",
    "ShuffleNetSpec",
    "apply_preprocessing",
    "build_plain",
    "create_model",
    "features_of",
    "freeze_backbone",
    "is_detector",
    "is_of_library",
    "list_models",
    "names_file",
    "network",
    "plain_name",
]
