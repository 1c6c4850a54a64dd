"""What training takes of a machine's memory: estimated, measured, chosen for, and explained where it runs out."""
