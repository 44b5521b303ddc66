"""``python -m codistill.kernels.bench``."""

import sys

from .cli import main

sys.exit(main())
