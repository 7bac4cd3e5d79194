"""The library of fusions, one file each, found by being here (``catalog``). Their order is in ``optimizer``."""
