"""Sharing trained models: one zip of everything that prediction needs, made, checked and installed."""
