"""The cases of `benchmarks/deploy.py`, and the section of the page with their results."""
