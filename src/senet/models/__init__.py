"""Plain networks, and the catalogue that names them, plain and with SE."""

from senet.models.catalogue import CATALOGUE, Network, build_plain, create_model, list_models, plain_name
from senet.models.resnet import ResNet, ResNetSpec
from senet.models.units import PadShortcut, PostActivationUnit, PreActivationUnit

__all__ = [
    "CATALOGUE",
    "Network",
    "PadShortcut",
    "PostActivationUnit",
    "PreActivationUnit",
    "ResNet",
    "ResNetSpec",
    "build_plain",
    "create_model",
    "list_models",
    "plain_name",
]
