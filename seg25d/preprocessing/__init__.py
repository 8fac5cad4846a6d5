"""From raw images to the arrays that training reads."""
