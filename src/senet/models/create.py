"""Build networks by name: classifiers, and detectors on them."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from torch import nn

from senet.models.catalogue import build_plain_classifier, create_classifier
from senet.models.detection import build_plain_detector, create_detector
from senet.models.detector_names import is_detector
from senet.utils.choices import Missing
from senet.utils.errors import shown
from senet.utils.keywords import check_keywords
from senet.utils.option_types import check_integer
from senet.utils.renamed import RENAMED_OPTIONS

__all__ = ["build_plain", "create_model"]


@check_keywords(**RENAMED_OPTIONS)
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    weights: str | PathLike[str] | nn.Module | None = None,
    missing: Missing | None = None,
    head: bool = True,
    entry: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by its name; the default architecture is the authors' release.

    Args:
        name: "resnet50" is the plain network, "se_resnet50" has SE; `list_models` lists all names. Networks of other
            libraries are "timm/NAME" and "torchvision/NAME", with SE "se_timm/NAME" and "se_torchvision/NAME".
            Detectors are "faster_rcnn:NAME" and "retinanet:NAME", with a network of the catalogue or of timm as
            backbone: "faster_rcnn:se_resnet50".
        num_classes: number of classes; 0 omits the classifier (not in torchvision's networks); None is the network's
            default. Detectors do not count the background, and have COCO's 80 by default.
        in_channels: channels of the images; torchvision's networks require 3.
        weights: weights of senet or another library, see `senet.load_weights`: a file, "timm:NAME", "torchvision:NAME"
            or "hf-hub:OWNER/NAME"; or a network. They determine the architecture, SE and the number of classes unless
            an option is given; an option that contradicts them is an error. The network's attribute `weights_report`
            holds the report.
        missing: "gates" if the weights are a plain network's and the network has SE; SE is then initialized as
            identity unless `init` is given.
        head: False keeps the classifier's initialization, for another number of classes than the weights have.
        entry: which state dict of a file with several, such as "model" or "ema", see `senet.load_weights`.
        features_only: return a network whose output is a list of maps, as in timm; see `senet.models.features_of`.
        out_indices: indices of the maps with `features_only`: 0 is the first, a ResNet's stem, and -1 the last. An
            integer n selects the last n maps; None selects all.
        options: for a network with SE, options of `senet.insert`: placement, reduction, squeeze, gate, bias, stages,
            at, init (default "paper"), window. Options of the architecture, where the network has them: stem, pool,
            stride_in, shortcut, projection, drop_rate, drop_path_rate, see `senet.models.ResNetSpec`; of timm/NAME the
            last two. Of a detector in addition: `backbone_weights`, a classifier's weights as for `weights`, to which
            `missing`, `head` and `entry` then apply; and the fields of `senet.models.detection.DetectorSpec`.

    Returns:
        The network, in training mode; a detector is torchvision's `FasterRCNN` or `RetinaNet`.

    Raises:
        TypeError: an option of another type, or an unknown one; the message names the closest option, or the name here
            of an option of timm.
        ValueError: an unknown name, an invalid value of an option, an SE option of a plain network, or weights that do
            not fit.

    Examples:
        >>> model = senet.create_model("se_resnet50", num_classes=10, reduction=8, stages=(3, 4))
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 10])
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be the name of a network, such as 'se_resnet50', got {shown(name)}")
    for key, number in (("num_classes", num_classes), ("in_channels", in_channels)):
        if number is not None:
            check_integer(key, number)
    create = create_detector if is_detector(name) else create_classifier
    return create(
        name,
        num_classes=num_classes,
        in_channels=in_channels,
        weights=weights,
        missing=missing,
        head=head,
        entry=entry,
        features_only=features_only,
        out_indices=out_indices,
        **options,
    )


def build_plain(name: str, *, num_classes: int | None = None, in_channels: int = 3, **architecture: Any) -> nn.Module:
    """Return a plain network by its name, with the options that build it again.

    Args:
        name: of a plain network, or of a detector on one.
        num_classes, in_channels: as in `create_model`.
        architecture: options of the architecture, see `create_model`. Nothing of a detector is frozen yet, see
            `senet.models.detection.freeze_backbone`.

    Returns:
        The network, with the attributes `architecture` (its name and options), `num_classes`, `in_channels` and
        `pretrained_cfg`.

    Raises:
        TypeError: an option that `create_model` does not have for this network's architecture.
        ValueError: an unknown plain network, or an invalid value of an option.
    """
    build = build_plain_detector if is_detector(name) else build_plain_classifier
    return build(name, num_classes=num_classes, in_channels=in_channels, **architecture)
