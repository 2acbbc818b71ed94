"""Archives of which no image is missed: Python takes a damaged header in the middle of a .tar for its end."""

import tarfile
from pathlib import Path
from typing import Any

__all__ = ["Member", "check_rest"]


class Member(tarfile.TarInfo):
    """A member of a .tar that ends with zeros, as the format has it, and with nothing else."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        """As in tarfile, but a header that is damaged, cut off or missing is an error wherever it is."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"at byte {archive.offset:,} it has neither a member nor the zeros that end a .tar"
            ) from error


def check_rest(path: Path, start: int) -> None:
    """Read the headers from a byte on.

    Raises:
        OSError, tarfile.TarError: one is damaged, or the end is missing.
    """
    with path.open("rb") as file:
        file.seek(start)
        with tarfile.TarFile(fileobj=file, tarinfo=Member) as archive:
            for _ in archive:
                pass
