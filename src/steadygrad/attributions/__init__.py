"""Maps that explain a prediction, and how alike two maps are."""

from steadygrad.attributions import similarity, stability
from steadygrad.attributions.base import ATTRIBUTIONS, Attribution, Of, score
from steadygrad.attributions.gradients import InputXGradient, IntegratedGradients, Saliency, SmoothGrad

__all__ = [
    "ATTRIBUTIONS",
    "Attribution",
    "InputXGradient",
    "IntegratedGradients",
    "Of",
    "Saliency",
    "SmoothGrad",
    "score",
    "similarity",
    "stability",
]
