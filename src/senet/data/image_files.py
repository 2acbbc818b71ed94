"""Find the image files of folders."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from senet.data.decoding import KINDS, extensions
from senet.utils.errors import DataError, DataWarning
from senet.utils.text import natural_key

__all__ = ["NONE_SKIPPED", "SkippedFiles", "image_paths", "is_hidden", "is_image", "list_images", "warn_of_skipped"]

# Written by operating systems, never by the user.
_SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx"))
_EXAMPLES = 3


@dataclass(frozen=True)
class SkippedFiles:
    """Files of a data set that are not read.

    Attributes:
        count: number of files.
        examples: names of the first files.
    """

    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Return a message with the number of files and examples."""
        files = (
            "1 file, which is not an image by its extension"
            if self.count == 1
            else (f"{self.count:,} files, which are not images by their extensions")
        )
        more = ", ..." if self.count > len(self.examples) else ""
        return f"skipped {files} ({KINDS}): {', '.join(self.examples)}{more}"

    @classmethod
    def of(cls, names: Sequence[str]) -> "SkippedFiles":
        """Create from the names of all skipped files."""
        return cls(len(names), tuple(names[:_EXAMPLES]))


NONE_SKIPPED = SkippedFiles(0, ())


def warn_of_skipped(skipped: SkippedFiles, where: str) -> None:
    """Warn (`DataWarning`) about files that are not read, if there are any."""
    if skipped.count:
        warnings.warn(f"{where}: {skipped}", DataWarning, stacklevel=3)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image, by its extension in upper or lower case."""
    return os.path.splitext(path)[1].lower() in extensions()


def is_hidden(path: str) -> bool:
    """Whether a file or one of its folders is hidden or a system file.

    Examples: `.ipynb_checkpoints`, macOS's `._cat.jpg` and Windows' `Thumbs.db`.
    """
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.lower() in _SYSTEM for part in Path(path).parts
    )


def image_paths(folder: str | os.PathLike[str]) -> tuple[list[str], SkippedFiles]:
    """Return the image files below a folder in natural order, without hidden ones; and the other files.

    Links are followed, except to a folder that contains them.
    """
    images: list[str] = []
    others: list[str] = []
    for path in _files_below(os.fspath(folder)):
        (images if is_image(path) else others).append(path)
    # The path breaks ties of the natural order, such as "1" and "01".
    return sorted(images, key=lambda path: (natural_key(path), path)), SkippedFiles.of(sorted(others))


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the given image files, and all images in the given folders, sorted by folder.

    A `DataWarning` reports files of the folders that are not images.

    Raises:
        DataError: a path is empty or does not exist, or a folder holds no images.
    """
    files = []
    for name in paths:
        if not os.fspath(name).strip():  # an empty path would mean the working directory
            raise DataError(f"the name of an image or folder is empty, got {os.fspath(name)!r}; give one")
        path = Path(name)
        if not path.exists():
            raise DataError(f"no image or folder at {path}")
        if not path.is_dir():
            files.append(path)
            continue
        inside, skipped = image_paths(path)
        if not inside:
            raise DataError(f"the folder {path} contains no images ({KINDS})")
        warn_of_skipped(skipped, str(path))
        files += sorted(map(Path, inside))
    return files


def _files_below(folder: str) -> Iterator[str]:
    # For each pending folder: its real path and those of its parents.
    above: dict[str, tuple[str, ...]] = {folder: (os.path.realpath(folder),)}
    for here, folders, files in os.walk(folder, followlinks=True):
        around = above.pop(here)
        inside = []
        for name in folders:
            real = os.path.realpath(os.path.join(here, name))
            if not is_hidden(name) and real not in around:
                inside.append(name)
                above[os.path.join(here, name)] = (*around, real)
        folders[:] = inside
        yield from _visible(here, files)


def _visible(folder: str, names: Iterable[str]) -> Iterator[str]:
    return (os.path.join(folder, name) for name in names if not is_hidden(name))
