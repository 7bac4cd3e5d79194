"""How good a model's predictions are, beside how fast they come."""
