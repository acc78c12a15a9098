"""Requests become ComfyUI graphs. Pure: no I/O, no clock, no randomness."""
