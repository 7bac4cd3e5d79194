"""Rules and passes that bring any exporter's graph to one form. Their order is in ``optimizer``."""
