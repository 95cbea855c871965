"""One thread a process, since pytest-xdist runs as many processes as there are cores; repeatable examples."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

# Compiled once: many tests give the commands a cache folder of their own.
os.environ.setdefault("NASAUG_KERNELS", os.path.join(tempfile.gettempdir(), f"nasaug-test-kernels-{os.getuid()}"))

# All compiled kernels, untested: what a self-test finds can differ from one process to the next on a busy machine, and
# tests compare results bit for bit. tests/kernels/test_kernel_choice.py is about the self-test.
os.environ.setdefault("NASAUG_CHOICES", "{}")

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("support")  # what it asserts is told as in a test

settings.register_profile("nasaug", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("nasaug")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """A new working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def laid_out(empty_folder):
    """A new working folder with the recipe and the space of the smallest job."""
    from support.commands import lay_out

    lay_out(empty_folder)
    return empty_folder


@pytest.fixture(params=["compiled", "by torch"])
def either(request):
    """The same in C and in torch."""
    from nasaug.kernels import build, choice

    if request.param == "compiled" and build.unsupported():
        pytest.skip("no C compiler, or NASAUG_KERNELS is off")
    assert request.param == "by torch" or build.library() is not None
    with choice.forced(request.param == "compiled"):
        yield
