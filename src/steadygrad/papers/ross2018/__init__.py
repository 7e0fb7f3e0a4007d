"""Ross and Doshi-Velez 2018: regularizing input gradients."""

from steadygrad.papers.ross2018.experiment import ROSS2018 as ROSS2018
