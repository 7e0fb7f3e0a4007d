"""Measurements beside the package: against other libraries, and against the papers."""
