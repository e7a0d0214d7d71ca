"""Several processes: starting them, and sums over all of them."""
