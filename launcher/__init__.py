"""The commands of dream_layer.py: sets up the environment, starts and stops everything, manages models and jobs.

`cli`, `arguments`, `environment` and what they import at the top need the standard library only. The scripts import
this package first, so that an old Python gets a message instead of a traceback.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("Dream Layer needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])
