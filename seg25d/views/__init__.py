"""The training of `mv`: models of three views, and the network that fuses them."""
