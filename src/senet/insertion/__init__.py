"""Find the sites of a network, insert SE there, and remove it.

Placements and network families are rows of the tables in `families.py`. Imports `senet.graph`, `senet.nn` and
`senet.utils`; `senet.weights`, `senet.models` and the layers above import it.
"""

from senet.insertion.insert import insert, place, remove
from senet.insertion.sites import Site, find_sites

__all__ = [
    "Site",
    "find_sites",
    "insert",
    "place",
    "remove",
]
