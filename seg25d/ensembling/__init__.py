"""Combining models."""
