"""From a data set's fingerprint to plans."""
