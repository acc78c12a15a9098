"""Prints the tables of docs/api.md that hold the fields of the API: `python -m shared.schema`."""

import sys

from shared.schema.table import markdown_tables

if __name__ == "__main__":
    sys.stdout.write(markdown_tables())
