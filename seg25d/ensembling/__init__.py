"""Fusion of several predictions of one volume."""
