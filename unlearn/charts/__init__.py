"""Pictures of what was measured, as SVG: plain numbers in, the same letters out every time."""
