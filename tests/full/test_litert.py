"""tools/litert.py on a small run, in an environment that is there already: NASAUG_LITERT, or .venv-litert."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import done

ROOT = Path(__file__).resolve().parent.parent.parent
ENV = Path(os.environ.get("NASAUG_LITERT", ROOT / ".venv-litert"))


@pytest.mark.skipif(not (ENV / "bin/python").is_file(), reason="no environment: run tools/litert.py on any run")
@pytest.mark.timeout(900)
def test_the_same_net_is_converted_in_float_and_in_int8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arch = ("--arch", "mobilenetv2-tiny", "--resolution", "16", "--data", "digits")
    done("train", *arch, "--method", "baseline", "--set", "epochs=12", "--run", "run")
    command = [sys.executable, ROOT / "tools/litert.py", "run", "--env", ENV]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert told.returncode == 0, told.stderr[-2000:]
    made = json.loads(Path("run/litert/litert.json").read_text())
    files = made["files"]
    assert files["model"]["difference"] < 1e-4 and files["model"]["agreement"] == 1
    assert files["model"]["score"] == pytest.approx(files["model"]["trained"], abs=0.3)
    assert abs(files["model-int8"]["score"] - files["model-int8"]["trained"]) < 8  # 5.3 were seen
    for name, row in files.items():
        content = Path(f"run/litert/{name}.tflite").read_bytes()
        assert len(content) == row["bytes"] and content[4:8] == b"TFL3"
    assert files["model-int8"]["bytes"] < 0.6 * files["model"]["bytes"]
    assert made["facts"]["classes"] == list("0123456789")
    before = {path: path.read_bytes() for path in Path("run/litert").iterdir()}
    again = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert again.returncode == 2 and "run/litert exists already; give another folder with --out" in again.stderr
    assert before == {path: path.read_bytes() for path in Path("run/litert").iterdir()}
