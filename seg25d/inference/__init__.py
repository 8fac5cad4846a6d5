"""Segmentation of images by trained models."""
