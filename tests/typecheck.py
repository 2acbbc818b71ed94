"""The checker of annotations at run time; an int will do where a float is asked for, as type checkers have it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
