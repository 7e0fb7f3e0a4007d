"""Maps that explain a prediction, and how alike two maps are."""

from steadygrad.attributions import similarity, stability
from steadygrad.attributions.attribution import ATTRIBUTIONS, Attribution, Of, score
from steadygrad.attributions.gradients import InputXGradient, IntegratedGradients, Saliency, SmoothGrad
from steadygrad.attributions.perturbation import SARFA, BlurSaliency, Occlusion

__all__ = [
    "ATTRIBUTIONS",
    "SARFA",
    "Attribution",
    "BlurSaliency",
    "InputXGradient",
    "IntegratedGradients",
    "Occlusion",
    "Of",
    "Saliency",
    "SmoothGrad",
    "score",
    "similarity",
    "stability",
]
