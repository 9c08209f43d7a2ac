"""What simulations and laboratories found, as one HTML page, JSON and pictures."""
