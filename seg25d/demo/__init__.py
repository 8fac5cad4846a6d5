"""The demos: all steps on small synthetic data sets, one kind per data set."""
