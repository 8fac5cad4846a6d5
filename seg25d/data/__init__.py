"""Data sets, labels, images and what can be wrong with them."""
