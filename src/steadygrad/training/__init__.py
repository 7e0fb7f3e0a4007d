"""Training: `fit`, its settings and its result."""

from steadygrad.training.fit import FitResult as FitResult
from steadygrad.training.fit import fit as fit
from steadygrad.training.settings import FitSettings as FitSettings
