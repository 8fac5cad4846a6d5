"""Self-configuring segmentation of 3D medical images with 2.5D methods."""

__version__ = "0.2.0"
