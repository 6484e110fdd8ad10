"""Training on medical images; needs `pip install cfii[train]`."""
