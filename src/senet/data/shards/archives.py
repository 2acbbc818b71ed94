"""Archives of which no image is missed: Python takes a damaged header in the middle of a .tar for its end."""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from senet.data.image_files import is_hidden, is_image
from senet.utils.errors import shown

__all__ = ["META", "MOST_BYTES", "Member", "content_of", "images_in"]

# Of a member of a .tar: 64 GiB. Where a stream ends before a member does, tarfile reads on until it had all of it.
MOST_BYTES = 2**36
# Of a member that is read into memory: 1 GiB.
MOST_CONTENT = 2**30
# Members that WebDataset keeps for itself.
META = re.compile(r"__[^/]*__($|/)")


class Member(tarfile.TarInfo):
    """A member of a .tar that ends with zeros, as the format has it, and with nothing else."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        """As in tarfile, but a header that is damaged, cut off or missing is an error wherever it is."""
        try:
            member: Any = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            if archive.offset == 0:
                raise  # tarfile says itself that this is no archive
            raise tarfile.ReadError(
                f"at byte {archive.offset:,} it has neither a member nor the zeros that end a .tar"
            ) from error
        # Extended headers may say any number.
        if not 0 <= member.size <= MOST_BYTES:
            raise tarfile.ReadError(
                f"the member {shown(member.name)} has a size of {shown(member.size)} bytes, and {MOST_BYTES:,} are the "
                f"limit"
            )
        if member.issparse():
            raise tarfile.ReadError(f"the member {shown(member.name)} is sparse; make the .tar without --sparse")
        return member


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member, which is to fit in memory.

    Raises:
        tarfile.ReadError: it has more than `MOST_CONTENT` bytes, or fewer than its header says.
    """
    if member.size > MOST_CONTENT:
        raise tarfile.ReadError(
            f"the member {shown(member.name)} has {member.size:,} bytes, and {MOST_CONTENT:,} are the limit of an image"
        )
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def images_in(path: Path) -> tuple[list[tuple[str, int, int]], list[str]]:
    """The images of an uncompressed .tar, and of .tar files in it, without hidden ones.

    Returns:
        Of each image name, first byte in the file and size, in natural order; and the names of all other files, and of
        links.

    Raises:
        OSError, tarfile.TarError: a header is damaged, or the end is missing.
    """
    from timm.utils.misc import natural_key

    found: list[tuple[tuple[Any, int], tuple[str, int, int]]] = []  # by path, those of archives inside first
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
    """The files of an archive, and links to such."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # it would remember all
        if not member.isdir():
            yield member
