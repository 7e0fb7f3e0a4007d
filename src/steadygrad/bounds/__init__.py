"""How far an attribution can move within a threat: bounds to first order, and certified ones."""

import importlib
import pkgutil

from steadygrad.bounds.bound import BOUNDS as BOUNDS
from steadygrad.bounds.bound import Bound as Bound
from steadygrad.bounds.certified import CertifiedDeviation as CertifiedDeviation
from steadygrad.bounds.certified import CertifiedMargin as CertifiedMargin
from steadygrad.bounds.certified import MarginBound as MarginBound
from steadygrad.bounds.linearized import LinearizedDeviation as LinearizedDeviation
from steadygrad.bounds.result import DeviationBound as DeviationBound
from steadygrad.bounds.result import deviation as deviation

# A new file in this folder needs no line here; those above tell editors and type checkers the names.
for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
globals().update({row.method.__name__: row.method for row in BOUNDS})
