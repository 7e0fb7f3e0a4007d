"""Who computes the shards of an audit: processes of this machine, whoever sees the folder, or a cluster."""

from steadygrad.engines.engine import ENGINES as ENGINES
from steadygrad.engines.engine import Engine as Engine
from steadygrad.engines.local import Local as Local
from steadygrad.engines.on_ray import Ray as Ray
from steadygrad.engines.shared import Shared as Shared

# A new file in this folder needs no line here; those above tell editors and type checkers the names.
globals().update(ENGINES.discover(__name__, __path__))
