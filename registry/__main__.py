"""`python -m registry` is `tonnage`."""

from registry.cli import main

main()
