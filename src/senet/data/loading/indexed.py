"""Batches of a data set whose images can be read in any order."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from senet.data.loading.loader import Loader

__all__ = ["IndexedLoader"]


@dataclass(kw_only=True)
class IndexedLoader(Loader):
    """Batches of a map-style data set: worker processes read images by index, in a random order for training."""

    @property
    def order(self) -> str:
        """A permutation of all images: "random", or "random by aspect", in batches of images of one kind."""
        return "random" if self.data.aspects() is None else "random by aspect"

    def _read(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._from_workers(self._plan(epoch, start), epoch, start)
