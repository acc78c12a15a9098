"""The queue of jobs: graphs, as plain dicts, become jobs, and jobs become pictures. `service.Jobs` is its interface."""
