"""People as judges: a study made of run folders, served as pages, its answers kept in a database."""

from __future__ import annotations
