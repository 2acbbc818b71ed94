"""The kinds of data that a spec can name: digits, folders, archives, torchvision, Hugging Face, shards, CSV, COCO.

Imports `senet.data.images` and `senet.data.shards`. `senet.data.specs` uses it.
"""

from senet.data.sources.kinds import SPECS, open_source

__all__ = ["SPECS", "open_source"]
