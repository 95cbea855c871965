"""The small file that says how far a run is."""

import json
import os

from nasaug.core.progress import Line, Progress, expect, heard_by, stage, stages_of
from nasaug.rundirs import live
from nasaug.rundirs.folder import LOCK
from nasaug.rundirs.live import Progressed


def test_it_says_how_far_the_command_is_and_goes_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "EVERY_S", 0.0)
    (tmp_path / LOCK).touch()
    told = Progressed(tmp_path)
    with heard_by(told), stages_of("supernet", "candidates"):
        with stage("supernet"), Progress("supernet", 4):
            pass
        expect("candidates", 100.0)
        with stage("candidates"), Progress("candidates", 10, unit="candidates") as job:
            told(Line("no matter"))
            job.update(0, best=(-88.12, "best top-1 88.12 %"))
            content = json.loads((tmp_path / live.FILE).read_text())
    assert content["format"] == live.FORMAT and [each["name"] for each in content["ended"]] == ["supernet"]
    assert {key: content[key] for key in ("stage", "number", "of", "share", "whole", "known", "best")} == {
        "stage": "candidates", "number": 2, "of": 2, "share": 0.0, "whole": 100.0, "known": True,
        "best": "best top-1 88.12 %",
    }  # fmt: skip
    assert live.told(tmp_path) == "candidates 0%, about 1 m 40 s left, best top-1 88.12 %"
    os.utime(tmp_path / live.FILE, (0, 0))  # of a process before the one that wrote the lock
    left = live.read(tmp_path, running=False)
    assert live.told(tmp_path) == "" and left | {"time": 0} == content | {"time": 0}  # written again as the job ended
    told.remove()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_it_is_written_now_and_then_and_at_the_end_of_a_job_and_never_in_the_way(tmp_path):
    told = Progressed(tmp_path)
    with heard_by(told), Progress("train", 4) as job:
        job.update(3)
        assert json.loads((tmp_path / live.FILE).read_text())["done"] == 0
    assert json.loads((tmp_path / live.FILE).read_text())["done"] == 3
    with heard_by(Progressed(tmp_path / "gone")), Progress("train", 4):
        pass
    assert not (tmp_path / "gone").exists()
