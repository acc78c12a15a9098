"""The launcher: `python dream_layer.py up` installs what is missing and starts everything. See README.md, or --help."""

import sys

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
