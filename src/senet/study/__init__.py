"""Grids of training runs with seeds: what is planned, how it is run, and what it comes to."""
