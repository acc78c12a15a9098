"""The launcher: `python dream_layer.py up` sets everything up and starts it. See README.md, or --help."""

import sys

if sys.version_info < (3, 10):
    sys.exit("Dream Layer needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
