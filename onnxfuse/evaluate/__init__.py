"""How good a model's predictions are, beside how fast they come.

sentences    real English without a download: the standard library's docstrings
embeddings   what a rewrite or quantization does to sentence embeddings
"""
