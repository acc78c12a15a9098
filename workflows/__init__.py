"""Turns requests into ComfyUI graphs, and reads imported graphs. Pure: no I/O, no clock, no randomness."""
