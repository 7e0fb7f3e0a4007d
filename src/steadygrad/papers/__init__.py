"""The papers as runnable experiments: trained, measured, and put next to the published numbers."""

from steadygrad.papers.base import Paper as Paper
from steadygrad.papers.base import Request as Request
from steadygrad.papers.catalog import PAPERS as PAPERS
from steadygrad.papers.catalog import reproduce as reproduce
