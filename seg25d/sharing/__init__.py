"""Sharing of trained models: export, checks and installation of a zip file with everything that prediction needs."""
