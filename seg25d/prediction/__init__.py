"""What `predict` does with one model, where torch is installed and where it is not."""
