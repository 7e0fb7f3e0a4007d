"""Neurons: how far they move under attack, and what happens without them."""

from steadygrad.neurons.movers import Movers as Movers
from steadygrad.neurons.movers import movers as movers
from steadygrad.neurons.recording import Layers as Layers
from steadygrad.neurons.recording import neuron_axis as neuron_axis
from steadygrad.neurons.recording import recorded as recorded
from steadygrad.neurons.sensitivity import change as change
from steadygrad.neurons.sensitivity import changes as changes
from steadygrad.neurons.sensitivity import curve as curve
from steadygrad.neurons.sensitivity import select as select
from steadygrad.neurons.sensitivity import sensitivity as sensitivity
from steadygrad.neurons.sensitivity import spectrum as spectrum
from steadygrad.neurons.sensitivity import stream as stream
from steadygrad.neurons.switching import patched as patched
from steadygrad.neurons.switching import switched_off as switched_off
