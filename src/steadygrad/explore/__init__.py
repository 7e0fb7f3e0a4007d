"""Looking at a run by hand: an image of it, or of one's own, under attack while the radius is dragged."""

from __future__ import annotations
