"""Whether two models compute the same: inputs to run them with, tolerances, and the one rule of what is compared on what."""
