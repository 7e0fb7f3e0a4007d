"""The audit of classifiers, and the comparison of a model before and after hardening."""

from steadygrad.audit.audit import audit as audit
from steadygrad.audit.checks.validity import validity as validity
from steadygrad.audit.cost import audit_cost as audit_cost
from steadygrad.audit.findings import Audit as Audit
from steadygrad.audit.harden import Hardening as Hardening
from steadygrad.audit.harden import harden as harden
from steadygrad.audit.records import evaluate as evaluate
from steadygrad.audit.records import robust_accuracy as robust_accuracy
