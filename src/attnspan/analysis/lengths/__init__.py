"""Lengths of examples: of which side, whether training saw such, in which bins; and the span, which is a length."""
