"""Images as input, on the same engine as audio (M2D-X, appendix A)."""
