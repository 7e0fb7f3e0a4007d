"""What every server of the package shares: an app with its limits and headers, pages in the report's look, a port."""

from __future__ import annotations
