"""Read .tar archives strictly: `tarfile` takes a damaged header in the middle of an archive for its end."""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from senet.data.image_files import is_hidden, is_image
from senet.utils.errors import shown
from senet.utils.text import natural_key

__all__ = ["META", "MOST_BYTES", "Member", "content_of", "images_in"]

# Largest member of a .tar: 64 GiB. tarfile tries to read a member whole, even if the stream ends before it.
MOST_BYTES = 2**36
# Largest member that is read into memory: 1 GiB.
MOST_CONTENT = 2**30
# Metadata members of WebDataset.
META = re.compile(r"__[^/]*__($|/)")


class Member(tarfile.TarInfo):
    """A member of a .tar whose headers are all valid, and which ends with zeros."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        """Read the next header. A damaged, truncated or missing header is an error everywhere.

        Raises:
            tarfile.ReadError: the header is invalid, or the member is too large or sparse.
        """
        try:
            member: Any = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            if archive.offset == 0:
                raise  # tarfile reports that this is no archive
            raise tarfile.ReadError(
                f"at byte {archive.offset:,} it has neither a member nor the zeros that end a .tar"
            ) from error
        # Extended headers can hold any number.
        if not 0 <= member.size <= MOST_BYTES:
            raise tarfile.ReadError(
                f"the member {shown(member.name)} has a size of {shown(member.size)} bytes, and {MOST_BYTES:,} are the "
                f"limit"
            )
        if member.issparse():
            raise tarfile.ReadError(f"the member {shown(member.name)} is sparse; make the .tar without --sparse")
        return member


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read a member into memory.

    Raises:
        tarfile.ReadError: it has more than `MOST_CONTENT` bytes, or fewer than its header states.
    """
    if member.size > MOST_CONTENT:
        raise tarfile.ReadError(
            f"the member {shown(member.name)} has {member.size:,} bytes, and {MOST_CONTENT:,} are the limit of an image"
        )
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def images_in(path: Path) -> tuple[list[tuple[str, int, int]], list[str]]:
    """List the images of an uncompressed .tar, and of .tar files in it, without hidden ones.

    Returns:
        Name, first byte in the file and size of each image, in natural order; and the names of all other files and
        of links.

    Raises:
        OSError: the file cannot be read.
        tarfile.TarError: a header is damaged, or the end is missing.
    """
    found: list[tuple[tuple[Any, int], tuple[str, int, int]]] = []  # by path; members of nested archives first
    others: list[str] = []

    def add(member: tarfile.TarInfo, folder: str, start: int, order: int) -> None:
        name = os.path.join(folder, member.name)
        if is_hidden(name):
            return
        if member.isfile() and is_image(name):
            found.append(((natural_key(member.path), order), (name, start + member.offset_data, member.size)))
        else:
            others.append(name)

    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=Member) as archive:
        for member in _members(archive):
            if not (member.isfile() and os.path.splitext(member.name)[1].lower() == ".tar"):
                add(member, "", 0, 1)
                continue
            with tarfile.open(fileobj=archive.extractfile(member), mode="r:", tarinfo=Member) as inner:
                for one in _members(inner):
                    add(one, os.path.splitext(member.name)[0], member.offset_data, 0)
    return [image for _, image in sorted(found, key=lambda one: one[0])], others


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files and links of an archive."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
        if not member.isdir():
            yield member
