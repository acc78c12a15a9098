"""What the launcher and both services share: the request's schema, the engine, jobs, and the web layer."""

__version__ = "0.1.0"
