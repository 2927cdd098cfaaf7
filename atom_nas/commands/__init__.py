"""The parts of the command line: options, errors, what `list` shows; `atom_nas.cli` puts them together."""
