"""Labelled images: open a data set by its spec, check it, preprocess and augment it, and load batches.

Imports `senet.utils`. Evaluation, recipes, gates and training use it.
"""

from senet.data.augmentation import Augmentation
from senet.data.boxes import BoxData, BoxTarget, ImageBoxes
from senet.data.checking import BadImage, ClassCount, DataReport, check_data
from senet.data.faults import AnnotationFault, check_faults
from senet.data.image_files import SkippedFiles, image_paths, is_hidden, list_images, warn_of_skipped
from senet.data.images import ImageData, decode, open_image
from senet.data.loading import Loader, open_loader
from senet.data.multi_label import MultiLabelData
from senet.data.preprocessing import Preprocessing, PreprocessingOptions
from senet.data.sources import SPECS
from senet.data.specs import open_data, open_images, open_splits

__all__ = [
    "SPECS",
    "AnnotationFault",
    "Augmentation",
    "BadImage",
    "BoxData",
    "BoxTarget",
    "ClassCount",
    "DataReport",
    "ImageBoxes",
    "ImageData",
    "Loader",
    "MultiLabelData",
    "Preprocessing",
    "PreprocessingOptions",
    "SkippedFiles",
    "check_data",
    "check_faults",
    "decode",
    "image_paths",
    "is_hidden",
    "list_images",
    "open_data",
    "open_image",
    "open_images",
    "open_loader",
    "open_splits",
    "warn_of_skipped",
]
