"""Loaders: batches of a data set, from memory, worker processes or streamed shards; on the host or on a GPU.

Imports the data sets of `senet.data` and `senet.data.shards`. Evaluation, gates and training use it.
"""

from senet.data.loading.device_batches import DeviceData, batch_device, prefetched
from senet.data.loading.factory import MEMORY_LIMIT, open_loader
from senet.data.loading.indexed import IndexedLoader
from senet.data.loading.loader import Loader
from senet.data.loading.streaming import StreamLoader

__all__ = [
    "MEMORY_LIMIT",
    "DeviceData",
    "IndexedLoader",
    "Loader",
    "StreamLoader",
    "batch_device",
    "open_loader",
    "prefetched",
]
