"""The work behind each command, one file per step."""
