"""One thread per process, because pytest-xdist runs one process per core; reproducible hypothesis examples."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

# Compile once: many tests give the commands a cache folder of their own.
os.environ.setdefault("NASAUG_KERNELS", os.path.join(tempfile.gettempdir(), f"nasaug-test-kernels-{os.getuid()}"))

# All compiled kernels, without the self-test: on a busy machine its verdict can differ between processes, and tests
# compare results bit for bit. tests/kernels/test_kernel_choice.py tests the self-test.
os.environ.setdefault("NASAUG_CHOICES", "{}")

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("support")  # its asserts report values as in a test

settings.register_profile("nasaug", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("nasaug")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """A new, empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def laid_out(empty_folder):
    """A new working directory with the recipe and the space of the smallest job."""
    from support.commands import lay_out

    lay_out(empty_folder)
    return empty_folder


@pytest.fixture(params=["compiled", "by torch"])
def either(request):
    """Runs the test twice: with the kernels in C and with torch's operations."""
    from nasaug.kernels import build, choice

    if request.param == "compiled" and build.unsupported():
        pytest.skip("no C compiler, or NASAUG_KERNELS is off")
    assert request.param == "by torch" or build.library() is not None
    with choice.forced(request.param == "compiled"):
        yield
