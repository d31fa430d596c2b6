"""The attribution layer: touchpoints and conversions of a profile, and how the value of one is shared over the other."""
