"""Maps that explain a prediction: how they are made, how alike two are, and whether they can be trusted."""

from steadygrad.attributions import similarity as similarity
from steadygrad.attributions import stability as stability
from steadygrad.attributions.attribution import ATTRIBUTIONS as ATTRIBUTIONS
from steadygrad.attributions.attribution import Attribution as Attribution
from steadygrad.attributions.attribution import Of as Of
from steadygrad.attributions.attribution import score as score
from steadygrad.attributions.gradients import InputXGradient as InputXGradient
from steadygrad.attributions.gradients import IntegratedGradients as IntegratedGradients
from steadygrad.attributions.gradients import Saliency as Saliency
from steadygrad.attributions.gradients import SmoothGrad as SmoothGrad
from steadygrad.attributions.perturbation import SARFA as SARFA
from steadygrad.attributions.perturbation import BlurSaliency as BlurSaliency
from steadygrad.attributions.perturbation import Occlusion as Occlusion

# A new file in this folder needs no line here; those above tell editors and type checkers the names.
globals().update(ATTRIBUTIONS.discover(__name__, __path__))
