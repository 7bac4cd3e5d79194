"""The verbs, one file each, and ``run``, which is all of them in a row.

Every verb loads, works in memory, verifies, and saves last: what fails leaves no file behind.
"""
