"""`python -m florentune` is the command `florentune`."""

from .cli import main

main()
