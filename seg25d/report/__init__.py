"""The report of a data set: one HTML file with plans, trainings and results."""
