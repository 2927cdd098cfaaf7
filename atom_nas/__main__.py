"""`python -m atom_nas`: the commands, where the console script is not on the path."""

from atom_nas.cli import main

main()
