"""Wang and Kong 2023: how far an attribution can move."""

from steadygrad.papers.wang2023.experiment import WANG2023 as WANG2023
