"""The launcher: `python dream_layer.py up` sets everything up and starts it. See README.md, or --help."""

import sys

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
