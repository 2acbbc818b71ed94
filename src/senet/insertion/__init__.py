"""Find the sites of a network, insert SE there, remove it, freeze all but SE, and group parameters.

Placements and network families are rows of the tables in `families.py`. Imports `senet.graph`, `senet.nn` and
`senet.utils`; `senet.weights`, `senet.models` and the layers above import it.
"""

from senet.insertion.freezing import freeze_except_se, unfreeze
from senet.insertion.insert import insert, remove
from senet.insertion.parameter_groups import param_groups
from senet.insertion.placing import place
from senet.insertion.site import Site
from senet.insertion.sites import find_sites
from senet.insertion.windows import set_window

__all__ = [
    "Site",
    "find_sites",
    "freeze_except_se",
    "insert",
    "param_groups",
    "place",
    "remove",
    "set_window",
    "unfreeze",
]
