"""Names and files of runs, and the content of a workspace."""
