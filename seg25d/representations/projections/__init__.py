"""Random 2.5D U-Net: maximum-intensity projections from many directions."""
