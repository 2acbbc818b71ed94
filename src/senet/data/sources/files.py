"""Images in separate files, as a source."""

from typing import IO

from senet.data.images import readable

__all__ = ["Files"]


class Files:
    """Images in separate files."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    def read(self, index: int) -> IO[bytes]:
        """Open an image file."""
        with readable(self.name(index)):
            return open(self._paths[index], "rb")

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self._paths[index]
