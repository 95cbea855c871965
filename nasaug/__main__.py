"""`python -m nasaug` and the `nasaug` console script."""

import os

# OpenMP threads that wait by spinning slow a machine shared with other processes down six times (measured:
# docs/performance.md); read when torch is loaded, so it is set before anything else. The user's own value wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .cli import main  # noqa: E402

if __name__ == "__main__":
    main()
