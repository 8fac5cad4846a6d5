"""Training of a fusion of views: models of the views, and the network that fuses them."""
