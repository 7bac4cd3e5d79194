"""Models in half precision: float16, node by node, and bfloat16 for weights alone."""
