"""What Python and notebooks get: runs and studies that show themselves."""
