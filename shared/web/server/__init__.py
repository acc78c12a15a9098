"""The web server: waitress with limits on connections, deadlines for slow clients, and liveness checks."""
