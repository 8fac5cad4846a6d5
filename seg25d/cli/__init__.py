"""The commands, one short module each, without logic."""
