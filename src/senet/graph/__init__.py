"""A network as the operations of one run, with the modules that they belong to; and what can be read off them."""
