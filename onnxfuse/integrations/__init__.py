"""Optimized models in the place of others: as modules of torch, inside the libraries that people use already."""
