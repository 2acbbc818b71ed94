"""Open data sets by their specs, one split or both."""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from senet.data.faults import warn_of_faults
from senet.data.image_files import warn_of_skipped
from senet.data.images import ImageData
from senet.data.sources import open_source
from senet.utils.choices import Split, check_choice
from senet.utils.errors import DataError

__all__ = ["open_data", "open_images", "open_splits"]

SPLITS: tuple[Split, ...] = get_args(Split)


def open_data(spec: str, split: Split = "val", *, classes: Sequence[str] | None = None) -> ImageData:
    """Open a data set by its spec. A `DataWarning` reports files that are not images, and annotations with faults.

    Args:
        spec: "digits" (scikit-learn's, 1,797 images, with a fixed split); a folder with `train/` and `val/` of class
            folders, or of class folders; an uncompressed `.tar` of class folders; "torchvision:CIFAR10?root=DIR", with
            more options of torchvision's class after `&`; "hf:NAME?split=SPLIT", of Hugging Face; "wds:FOLDER" of
            `senet shard`, or "wds:FOLDER/NAME-{000000..000127}.tar", WebDataset shards, also from `http://` or `pipe:`;
            "csv:FILE" of lines "path,label,label", or "csv:FOLDER" with train.csv and val.csv, and the same with
            "parquet:"; "coco:DIR" with train/, train.json, val/ and val.json of COCO, or
            "coco:?train=IMAGES,FILE.json&val=IMAGES,FILE.json".
        split: "train" or "val"; a spec without splits returns all images for both.
        classes: class names that define the class indices; by default those of the data, in natural order.

    Raises:
        ValueError: the split is unknown.
        DataError: the data or a required package is missing; there are no images, images without labels, or images
            outside of class folders; or a class has no images, has folders in two splits, or is not in `classes`.

    Examples:
        >>> data = senet.open_data("photos", "train")
        >>> len(data), data.classes
        (8, ['cat', 'dog'])
        >>> image, label = data[0]
        >>> image.size, label
        ((10, 8), 0)
    """
    data = open_images(spec, split, classes=classes)
    warn_of_faults(data.faults, spec)
    return data


def open_images(spec: str, split: Split = "val", *, classes: Sequence[str] | None = None) -> ImageData:
    """Open a data set as `open_data` does, without a warning about faults: `open_loader` reports them."""
    check_choice("split", split, Split)
    data = open_source(spec, split)
    warn_of_skipped(data.skipped_files, spec)
    return data if classes is None else data.with_classes(classes)


def open_splits(
    spec: str, val_spec: str | None = None, val_fraction: float | None = None
) -> tuple[ImageData, ImageData]:
    """Open training and validation data, with the classes of the training data.

    Args:
        spec: spec of the training data, or of both.
        val_spec: spec of separate validation data.
        val_fraction: fraction of the training images of each class to use for validation; the same images in every
            call.

    Raises:
        ValueError: both `val_spec` and `val_fraction` are given, or the fraction is not between 0 and 1.
        DataError: see `open_data`; or there is no validation data.
    """
    if val_spec is not None and val_fraction is not None:
        raise ValueError("give validation data or a fraction of the training data, not both")
    training = open_images(spec, "train")
    if val_spec is not None:
        return training, open_images(val_spec, "val", classes=training.classes)
    if val_fraction is not None:
        return _split(training, val_fraction)
    if not training.has_splits:
        raise DataError(f"{spec} has no validation split; give --val-data SPEC or --val-fraction 0.1")
    return training, open_images(spec, "val", classes=training.classes)


def _split(data: ImageData, fraction: float) -> tuple[ImageData, ImageData]:
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction for validation must be between 0 and 1, got {fraction}")
    validation = np.zeros(len(data), dtype=bool)
    random = np.random.default_rng(0)
    for name, positions in data.groups():
        members = random.permutation(positions)
        if len(members) == 1:
            raise DataError(
                f"the {name} of {data.spec} has a single image, which cannot be split; "
                f"add some, or give validation data of its own"
            )
        validation[members[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    return data.subset(np.flatnonzero(~validation)), data.subset(np.flatnonzero(validation))
