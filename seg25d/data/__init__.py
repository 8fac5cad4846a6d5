"""Data sets, labels and images, and the checks of them."""
