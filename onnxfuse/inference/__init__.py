"""Texts and images in, answers out, as a service needs them: NumPy and a model's own files, without torch or transformers."""
