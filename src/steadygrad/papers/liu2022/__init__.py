"""Liu et al. 2022: J-SIGR, a small Jacobian and selective input gradient regularization."""

from steadygrad.papers.liu2022.experiment import LIU2022 as LIU2022
