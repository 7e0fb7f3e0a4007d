"""Yan, Guo and Zhang 2018: Deep Defense."""

from steadygrad.papers.yan2018.experiment import YAN2018 as YAN2018
