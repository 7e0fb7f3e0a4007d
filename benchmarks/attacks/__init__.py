"""Speed and strength of the attacks, next to those of other libraries where these are installed."""

from benchmarks.attacks.bench import bench_attacks as bench_attacks
from benchmarks.attacks.race import Pace as Pace
