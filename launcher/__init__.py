"""Set-up and start. `cli`, `environment`, `terminal` and `models.arguments` run before there is more than the
standard library."""
