"""Open a spec with the reader of its kind."""

from pathlib import Path

from senet.data.images import ImageData
from senet.data.shards.dataset import open_shards
from senet.data.sources.class_folders import open_archive, open_folder
from senet.data.sources.coco import open_coco
from senet.data.sources.digits import open_digits
from senet.data.sources.file_lists import open_file_list
from senet.data.sources.hugging_face import open_hugging_face
from senet.data.sources.torchvision_sets import open_torchvision
from senet.utils.errors import DataError, shown
from senet.utils.input_files import reading

__all__ = ["SPECS", "open_source"]

SPECS = (
    "digits, a folder with train/ and val/ of class folders, an uncompressed .tar of class folders, "
    "torchvision:NAME?root=DIR, hf:NAME, wds:SHARDS, csv:FILE, parquet:FILE, coco:DIR"
)


def open_source(spec: str, split: str) -> ImageData:
    """Open one split of a spec, or all images of a spec without splits.

    Args:
        spec: one of `SPECS`.
        split: "train" or "val".

    Raises:
        DataError: the data do not exist, contain no image, or have a class without images.
    """
    if not spec:
        raise DataError(f"the data spec is empty; give {SPECS}")
    with reading(shown(spec, 200), "data", error=DataError):
        return _open(spec, split)


def _open(spec: str, split: str) -> ImageData:
    if spec == "digits":
        return open_digits(split)
    if spec.startswith("torchvision:"):
        return open_torchvision(spec, split)
    if spec.startswith("hf:"):
        return open_hugging_face(spec, split)
    if spec.startswith(("csv:", "parquet:")):
        return open_file_list(spec, split)
    if spec.startswith("coco:"):
        return open_coco(spec, split)
    if spec.startswith("wds:"):
        return open_shards(spec, split)
    path = Path(spec)
    if path.is_dir():
        return open_folder(spec, path, split)
    if path.is_file() and path.suffix.lower() == ".tar":
        return open_archive(spec, path)
    problem = "is a file of another kind" if path.exists() else "does not exist"
    raise DataError(f"the data {spec!r} {problem}; give {SPECS}")
