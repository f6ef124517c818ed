"""What installable packages score."""
