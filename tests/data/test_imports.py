"""Modules that take seconds to import are imported lazily."""

import subprocess
import sys


def test_data_in_memory_need_no_torchvision():
    code = "import sys, nasaug.training.train, nasaug.nas.stages; assert 'torchvision' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
