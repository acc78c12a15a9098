"""Graphs become jobs, and jobs become pictures. Knows a graph as a plain dict."""
