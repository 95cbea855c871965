"""Runs the tests of kernels and nets with torch, its libraries and the kernels restricted to AVX2.

    python tests/held_to_avx2.py [--always]      (a part of make test)

On a processor without AVX-512 all tests have run that way already: nothing is run, unless --always."""

import os
import subprocess
import sys
from pathlib import Path

from nasaug.kernels import build

NAMES = (
    "kernels/test_kernels", "kernels/test_kernel_blocks", "kernels/test_kernel_choice",
    "nets/test_net", "nets/test_gradients", "nets/test_permutation",
)  # fmt: skip
FILES = [str(Path(__file__).parent / f"{name}.py") for name in NAMES]


def main() -> None:
    if build.unsupported() or not build.has("AVX2"):
        print(f"the tests are not held to AVX2: {build.unsupported() or 'this processor has none'}")
    elif not build.has("AVX-512") and "--always" not in sys.argv:
        print("the tests are not held to AVX2: this processor has no more")
    else:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *FILES]
        sys.exit(subprocess.run(command, env=os.environ | build.HELD_TO["AVX2"]).returncode)


if __name__ == "__main__":
    main()
