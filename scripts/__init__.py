"""What is run by hand or by make; no part of the package."""
