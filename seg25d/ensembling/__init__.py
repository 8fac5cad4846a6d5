"""Several predictions of one volume, brought together."""
