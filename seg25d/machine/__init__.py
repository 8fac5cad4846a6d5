"""The self-test of a machine: whether networks compute right on it, and in which type they are fastest."""
