"""What can be written down for each sample: one file per family of measures."""

import importlib
import pkgutil

from steadygrad.measuring.measure import MEASURES as MEASURES

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
