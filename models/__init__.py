"""Model families, as data, one file each: inputs, tasks, and how often each fused thing must occur.

A file that defines an ``Architecture`` here is found (``onnxfuse.plugins``).
"""
