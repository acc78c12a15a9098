"""ComfyUI, the engine: installs, starts, guards and calls it, and checks graphs. Knows nothing of our requests."""
