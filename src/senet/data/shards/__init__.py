"""WebDataset shards: read them locally or as streams, index them, write them.

Imports `senet.data.images` and below. The data sets of `senet.data` use it.
"""

__all__: list[str] = []
