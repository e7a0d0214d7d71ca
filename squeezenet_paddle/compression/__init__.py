"""Makes the weights of a network small: rounded to a few values, so that its outputs stay."""
