"""Find the sites of a network, insert SE there, and remove it.

Imports `senet.graph`, `senet.nn` and below. Models, weights and everything above use it.
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
