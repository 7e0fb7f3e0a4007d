"""The command `steadygrad`: one file per subcommand."""

from __future__ import annotations

import sys
from typing import Any

from steadygrad.stopping import ends_in_order


def main(arguments: list[str] | None = None, **more: Any) -> None:
    """Run a command, as `app.main` does, whose import may be stopped too."""
    with ends_in_order() as stop:
        try:
            from steadygrad.cli.app import main as run
        except KeyboardInterrupt:
            sys.exit(128 + stop.number if stop.number else 130)
        run(arguments, **more)
