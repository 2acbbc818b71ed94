"""What `benchmarks/finetune.py` runs: arms and their order, training in parallel CUDA graphs, and the report."""
