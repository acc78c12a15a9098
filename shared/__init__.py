"""Code shared by the launcher and both services: request schema, engine, models, pictures, jobs and the web layer."""

__version__ = "0.1.0"
