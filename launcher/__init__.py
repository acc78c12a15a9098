"""Set-up and start. `cli`, `arguments`, `environment` and what those import at once need the standard library alone.

The scripts import this before anything else, so that a Python that is too old is told so, and shows no traceback.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("Dream Layer needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])
