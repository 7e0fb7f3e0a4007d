"""Records, robust accuracy, transfer, validity checks, and the audit made of them."""

from steadygrad.attacks.suites import SUITES as SUITES
from steadygrad.evaluation.audit import Audit as Audit
from steadygrad.evaluation.audit import audit as audit
from steadygrad.evaluation.records import Records as Records
from steadygrad.evaluation.records import robust_accuracy as robust_accuracy
from steadygrad.evaluation.rho import Rho2 as Rho2
from steadygrad.evaluation.rho import mean_image as mean_image
from steadygrad.evaluation.rho import rho2 as rho2
from steadygrad.evaluation.robustness import evaluate as evaluate
from steadygrad.evaluation.statistics import Estimate as Estimate
from steadygrad.evaluation.statistics import wilson as wilson
from steadygrad.evaluation.transfer import transfer_matrix as transfer_matrix
from steadygrad.evaluation.validity import validity as validity
