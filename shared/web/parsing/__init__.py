"""Parsing turns the fields of a request into a typed request with every value resolved, and collects warnings.

`generation` has the recipes; each other module parses one part of a request.
"""
