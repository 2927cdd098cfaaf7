"""The best of a ranking, trained for good: how, and the artifact that keeps them."""
