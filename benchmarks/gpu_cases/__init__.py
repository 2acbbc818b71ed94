"""What `benchmarks/gpu.py` measures: networks, numerics, kernels, the trainer; and the page that it writes."""
