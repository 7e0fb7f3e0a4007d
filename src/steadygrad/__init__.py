"""Gradients that stay put: audit and harden the input gradients of PyTorch image classifiers."""

__version__ = "0.1.0"

# Loaded before `audit` becomes the name of the function: a later first import would rebind it to the package.
import steadygrad.audit  # noqa: F401
from steadygrad import attacks as attacks
from steadygrad import attributions as attributions
from steadygrad import bounds as bounds
from steadygrad import data as data
from steadygrad import defenses as defenses
from steadygrad import measuring as measuring
from steadygrad import models as models
from steadygrad import neurons as neurons
from steadygrad import recipes as recipes
from steadygrad import report as report
from steadygrad.audit import audit as audit
from steadygrad.audit import evaluate as evaluate
from steadygrad.audit import harden as harden
from steadygrad.audit import robust_accuracy as robust_accuracy
from steadygrad.audit import validity as validity
from steadygrad.classifier import Classifier as Classifier
from steadygrad.classifier import frozen as frozen
from steadygrad.derivatives import smooth as smooth
from steadygrad.errors import Failure as Failure
from steadygrad.errors import UsageError as UsageError
from steadygrad.threat import Threat as Threat
from steadygrad.threat import l0 as l0
from steadygrad.threat import l1 as l1
from steadygrad.threat import l2 as l2
from steadygrad.threat import linf as linf
from steadygrad.training import FitSettings as FitSettings
from steadygrad.training import fit as fit
