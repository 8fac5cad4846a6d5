"""From a data set to the best model: a graph of commands, what runs them, and how a time for all of them is spent."""
