"""Faults that a campaign tries: kills, broken environments, damaged and hostile files, commands at the same time."""
