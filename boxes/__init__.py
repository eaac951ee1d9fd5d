"""Pure functions on boxes: transforms, overlaps, suppression, anchors, matching, sampling.

A box is (x1, y1, x2, y2) in pixels, 0-based, both corners included: its width is x2 - x1 + 1.
"""
