"""Zhang et al. 2021: neuron sensitivity and sensitive neuron stabilizing."""

from steadygrad.papers.zhang2021.experiment import ZHANG2021 as ZHANG2021
