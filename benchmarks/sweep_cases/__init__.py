"""Parts of `benchmarks/deploy_sweep.py`.

The networks of timm, their comparison, and the page.
"""

__all__: list[str] = []
