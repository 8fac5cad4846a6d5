"""The commands, one short module each; no logic."""
