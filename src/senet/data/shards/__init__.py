"""WebDataset shards: read them from disk or as streams, index them, write them.

Imports `senet.data.images` and below. `senet.data.sources`, `senet.data.loading` and the command line use it.
"""

from senet.data.shards.dataset import LocalShards, index_names, index_spec, open_shards
from senet.data.shards.index import Shard, ShardIndex, read_index
from senet.data.shards.remote import RemoteShards
from senet.data.shards.writing import WriteResult, damaged_shards, is_own, write_shards

__all__ = [
    "LocalShards",
    "RemoteShards",
    "Shard",
    "ShardIndex",
    "WriteResult",
    "damaged_shards",
    "index_names",
    "index_spec",
    "is_own",
    "open_shards",
    "read_index",
    "write_shards",
]
