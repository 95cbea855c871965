"""`python -m nasaug` and the `nasaug` console script."""

from .cli import main

if __name__ == "__main__":
    main()
