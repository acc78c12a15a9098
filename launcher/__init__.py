"""Set-up and start. `cli`, `environment` and `terminal` run before there is more than the standard library."""
