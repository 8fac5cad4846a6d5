"""From arrays and a plan to a trained model."""
