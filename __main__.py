"""``python -m codistill``."""

from .flows.cli import main

main()
