"""How far explanations can be pushed while the prediction stays, and how far at most."""

from steadygrad.evaluation.explained.settings import Explaining as Explaining
from steadygrad.evaluation.explained.summary import Explained as Explained
from steadygrad.evaluation.explained.summary import explain as explain
