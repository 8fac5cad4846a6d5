"""Comparing segmentations with the truth."""
