"""The command ``python -m uav_core.convert``; see ``uav_core.weights.convert``."""

import sys

from .weights.convert import main

if __name__ == "__main__":
    sys.exit(main())
