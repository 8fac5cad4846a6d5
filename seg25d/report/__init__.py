"""The report of a data set: one HTML file that shows what was planned, trained and found."""
