"""Training objectives that harden a classifier."""

from steadygrad.defenses.adversarial import TRADES as TRADES
from steadygrad.defenses.adversarial import AdversarialTraining as AdversarialTraining
from steadygrad.defenses.attribution_robustness import AttributionAlignment as AttributionAlignment
from steadygrad.defenses.attribution_robustness import AttributionCosine as AttributionCosine
from steadygrad.defenses.attribution_robustness import IGNorm as IGNorm
from steadygrad.defenses.deep_defense import DeepDefense as DeepDefense
from steadygrad.defenses.defense import DEFENSES as DEFENSES
from steadygrad.defenses.defense import Defense as Defense
from steadygrad.defenses.defense import Loss as Loss
from steadygrad.defenses.defense import Plain as Plain
from steadygrad.defenses.defense import State as State
from steadygrad.defenses.defense import Step as Step
from steadygrad.defenses.defense import Sum as Sum
from steadygrad.defenses.defense import parse as parse
from steadygrad.defenses.distillation import Distillation as Distillation
from steadygrad.defenses.gaussian_noise import GaussianNoise as GaussianNoise
from steadygrad.defenses.input_gradient import InputGradientPenalty as InputGradientPenalty
from steadygrad.defenses.jacobian_penalty import JacobianPenalty as JacobianPenalty
from steadygrad.defenses.parseval import Parseval as Parseval
from steadygrad.defenses.selective import SelectiveGradientPenalty as SelectiveGradientPenalty
from steadygrad.defenses.stable_neurons import StableNeurons as StableNeurons

# A new file in this folder needs no line here; those above tell editors and type checkers the names.
globals().update(DEFENSES.discover(__name__, __path__))
