"""Speed and strength of the attacks, next to those of other libraries where these are installed."""

from steadygrad.benchmarks.bench import bench_attacks as bench_attacks
from steadygrad.benchmarks.race import Pace as Pace
