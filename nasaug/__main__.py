"""`python -m nasaug` and the `nasaug` console script."""

import os

# How long OpenMP's threads spin before they sleep, read when torch is loaded, so it is set before anything else.
# libgomp's own 300,000 halves the speed on a machine shared with other processes, 0 halves it on a quiet one
# (docs/performance.md). The user's own value wins.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from .cli import main  # noqa: E402

if __name__ == "__main__":
    main()
