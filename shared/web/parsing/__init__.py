"""Parsing turns the fields of a request into a typed request with every value resolved, and collects warnings.

`generation` has the recipes; the other modules parse one part of a request each.
"""
