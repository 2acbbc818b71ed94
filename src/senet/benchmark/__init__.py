"""Benchmark a network against another: ratios of step times, interleaved in one process, or in engines.

Imports `senet.models`, `senet.costs` and below. The command line and the benchmarks of the repository use it.
"""

from senet.benchmark.engines import EngineBench, bench_engine
from senet.benchmark.measuring import Bench, Measured, bench, hardware, measure
from senet.benchmark.networks import open_network, plain_twin
from senet.benchmark.ratios import PRECISION, Ratio, ratio
from senet.benchmark.steps import Setting, Step
from senet.benchmark.timing import CudaEvent, Times, clock_for, interleave

__all__ = [
    "PRECISION",
    "Bench",
    "CudaEvent",
    "EngineBench",
    "Measured",
    "Ratio",
    "Setting",
    "Step",
    "Times",
    "bench",
    "bench_engine",
    "clock_for",
    "hardware",
    "interleave",
    "measure",
    "open_network",
    "plain_twin",
    "ratio",
]
