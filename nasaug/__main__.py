"""`python -m nasaug` and the `nasaug` console script."""

import os

# How long torch's OpenMP threads spin before they sleep. It is read when torch is loaded, so it is set before anything
# else. A higher value makes a training several times slower beside another busy process, a lower one makes it slower on
# a quiet machine (docs/explanation/performance.md). The user's own value wins.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from .cli import main as cli  # noqa: E402


def main() -> None:
    cli.main()


if __name__ == "__main__":
    main()
