"""Fine-tune a trained model with a defense, and say what the same images show it to be worth."""

from steadygrad.hardening.comparison import Comparison as Comparison
from steadygrad.hardening.comparison import Side as Side
from steadygrad.hardening.comparison import compare as compare
from steadygrad.hardening.harden import Hardening as Hardening
from steadygrad.hardening.harden import harden as harden
from steadygrad.hardening.harden import usual_settings as usual_settings
from steadygrad.hardening.harden import usual_values as usual_values
