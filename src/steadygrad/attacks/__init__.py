"""Inputs that change the prediction, and in `maps` inputs that change its explanation."""

from steadygrad.attacks.apgd import APGD as APGD
from steadygrad.attacks.attack import ATTACKS as ATTACKS
from steadygrad.attacks.attack import Attack as Attack
from steadygrad.attacks.attack_result import AttackResult as AttackResult
from steadygrad.attacks.carlini_wagner import CarliniWagner as CarliniWagner
from steadygrad.attacks.deepfool import DeepFool as DeepFool
from steadygrad.attacks.expectation import Expectation as Expectation
from steadygrad.attacks.expectation import is_deterministic as is_deterministic
from steadygrad.attacks.fab import FAB as FAB
from steadygrad.attacks.jsma import JSMA as JSMA
from steadygrad.attacks.maps.attribution_attacks import ATTRIBUTION_ATTACKS as ATTRIBUTION_ATTACKS
from steadygrad.attacks.maps.attribution_attacks import IFIA as IFIA
from steadygrad.attacks.maps.attribution_attacks import AttributionNoise as AttributionNoise
from steadygrad.attacks.maps.attribution_attacks import AttributionPGD as AttributionPGD
from steadygrad.attacks.maps.attribution_attacks import ExplanationAttack as ExplanationAttack
from steadygrad.attacks.maps.map_run import AttributionResult as AttributionResult
from steadygrad.attacks.maps.worst_similarity import explanation_suite as explanation_suite
from steadygrad.attacks.maps.worst_similarity import worst_similarity as worst_similarity
from steadygrad.attacks.minimum_norm import DDN as DDN
from steadygrad.attacks.minimum_norm import FMN as FMN
from steadygrad.attacks.momentum import MIFGSM as MIFGSM
from steadygrad.attacks.pgd import PGD as PGD
from steadygrad.attacks.sigma_zero import SigmaZero as SigmaZero
from steadygrad.attacks.sign import BIM as BIM
from steadygrad.attacks.sign import FGSM as FGSM
from steadygrad.attacks.sign import RandomNoise as RandomNoise
from steadygrad.attacks.smallest import Smallest as Smallest
from steadygrad.attacks.sparse_swaps import SparseSwaps as SparseSwaps
from steadygrad.attacks.square import Square as Square
from steadygrad.attacks.standard import Standard as Standard
from steadygrad.attacks.super_deepfool import SuperDeepFool as SuperDeepFool
from steadygrad.attacks.universal import Universal as Universal

# A new file in these folders needs no line here; those above tell editors and type checkers the names.
globals().update(ATTACKS.discover(__name__, __path__))
globals().update(ATTRIBUTION_ATTACKS.discover(f"{__name__}.maps", [f"{__path__[0]}/maps"]))
