"""Inputs that change the prediction."""

from steadygrad.attacks.apgd import APGD as APGD
from steadygrad.attacks.attribution import ATTRIBUTION_ATTACKS as ATTRIBUTION_ATTACKS
from steadygrad.attacks.attribution import IFIA as IFIA
from steadygrad.attacks.attribution import AttributionNoise as AttributionNoise
from steadygrad.attacks.attribution import AttributionPGD as AttributionPGD
from steadygrad.attacks.attribution import ExplanationAttack as ExplanationAttack
from steadygrad.attacks.attribution_run import AttributionResult as AttributionResult
from steadygrad.attacks.base import ATTACKS as ATTACKS
from steadygrad.attacks.base import Attack as Attack
from steadygrad.attacks.carlini_wagner import CarliniWagner as CarliniWagner
from steadygrad.attacks.deepfool import DeepFool as DeepFool
from steadygrad.attacks.engine import AttackResult as AttackResult
from steadygrad.attacks.expectation import Expectation as Expectation
from steadygrad.attacks.expectation import is_deterministic as is_deterministic
from steadygrad.attacks.fab import FAB as FAB
from steadygrad.attacks.jsma import JSMA as JSMA
from steadygrad.attacks.minimum_norm import DDN as DDN
from steadygrad.attacks.minimum_norm import FMN as FMN
from steadygrad.attacks.momentum import MIFGSM as MIFGSM
from steadygrad.attacks.pgd import PGD as PGD
from steadygrad.attacks.sign import BIM as BIM
from steadygrad.attacks.sign import FGSM as FGSM
from steadygrad.attacks.sign import RandomNoise as RandomNoise
from steadygrad.attacks.square import Square as Square
from steadygrad.attacks.standard import Standard as Standard
from steadygrad.attacks.universal import Universal as Universal
