"""One thread everywhere: the same sums in the same order, and two cores for whoever else is at work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
