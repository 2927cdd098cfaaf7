"""How good synthetic sets are: networks trained on them, tested on real images."""
