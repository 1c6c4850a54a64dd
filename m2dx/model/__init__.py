"""Patches, masking, M2D, MSM-MAE and the tasks beside them."""
