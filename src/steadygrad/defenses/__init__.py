"""Training objectives that harden a classifier."""

from steadygrad.defenses.adversarial import TRADES as TRADES
from steadygrad.defenses.adversarial import AdversarialTraining as AdversarialTraining
from steadygrad.defenses.base import DEFENSES as DEFENSES
from steadygrad.defenses.base import Defense as Defense
from steadygrad.defenses.base import Loss as Loss
from steadygrad.defenses.base import Plain as Plain
from steadygrad.defenses.base import State as State
from steadygrad.defenses.base import Step as Step
from steadygrad.defenses.base import Sum as Sum
from steadygrad.defenses.base import parse as parse
from steadygrad.defenses.distillation import Distillation as Distillation
from steadygrad.defenses.input_gradient import InputGradientPenalty as InputGradientPenalty
from steadygrad.defenses.parseval import Parseval as Parseval
