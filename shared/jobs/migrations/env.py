"""Alembic's environment: it uses the connection and the transaction of `upgrade`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
