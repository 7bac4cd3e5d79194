"""Honest timings, and the machine that they are true of."""
