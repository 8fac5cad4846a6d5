"""Which run is meant, and what a workspace holds."""
