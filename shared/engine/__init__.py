"""ComfyUI: fetched, run, asked. Knows a graph as a plain dict, and nothing of our requests."""
