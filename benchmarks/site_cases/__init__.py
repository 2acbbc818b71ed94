"""What `benchmarks/sites.py` runs: networks with the places where SE is expected, the checks, and the page.

Expectations are written from the code of the networks, not from the sites that senet finds.
"""
