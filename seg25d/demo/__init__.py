"""The demos: every step on a small made-up data set, one kind per set."""
