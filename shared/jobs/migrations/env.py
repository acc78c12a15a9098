"""Read by Alembic: the connection is the one that `upgrade` was given, and so is the transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
