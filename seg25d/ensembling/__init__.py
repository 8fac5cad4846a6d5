"""Several segmentations of one image made into one: fusions without training."""
