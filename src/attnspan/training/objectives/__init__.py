"""What training does besides teacher forcing on the cross-entropy."""
