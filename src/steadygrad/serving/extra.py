"""The libraries of the extra `study`, which are asked for when a command needs them."""

from __future__ import annotations

import importlib.util

from steadygrad.errors import UsageError


def need(what: str, *modules: str) -> None:
    """Refuse, by the name of the extra, what needs libraries that are not installed.

    Args:
        what: that needs them, such as "study serve".
        modules: how they are imported.

    Raises:
        UsageError: one of them is missing.

    >>> need("the example", "json")
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'steadygrad[study]'"
        )
