"""The command as `python -m steadygrad`."""

from steadygrad.cli import main

main()
