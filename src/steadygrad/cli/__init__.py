"""The command `steadygrad`: one file per subcommand."""

from steadygrad.cli.app import main as main
