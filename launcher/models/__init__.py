"""`dream_layer.py models`: list, add and remove model files.

Only a person at the command line names a URL here; no HTTP route leads to this package.
"""
