"""Extending a search to more candidates or more time: --resume with a higher value of either; or picking again."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from nasaug.core import tensorfile
from nasaug.core.signals import Stopped
from nasaug.nas import search
from nasaug.nas.finalists import PlayOff
from nasaug.nas.study import Search
from support.commands import QUICK, SEARCH, call, done, refused, stop, timeless, tree

RUN = Path("runs/search-1")  # finished, with 4 candidates
KEPT = ("supernet.safetensors", "finalists.json", "log.jsonl", "candidates.json")
EXTEND = ("search", "--resume", "--run", str(RUN))


def read(path: Path) -> dict:
    return timeless(json.loads(path.read_text()))


def logged(run: Path) -> list[dict]:
    return [timeless(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]


def candidates(run: Path) -> list[str]:
    """Candidates in the order of evaluation."""
    return [row["arch"] for row in logged(run) if row["event"] == "candidate"]


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    """The run of an uninterrupted search of 9 candidates."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("whole") / "here")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        done(*SEARCH, "--trials", "9", "--run", "run")
    return folder / "run"


def same_as(whole: Path, run: Path) -> None:
    """Assert that all evaluations and results equal those of an uninterrupted search of as many candidates."""
    for name in ("candidates.json", "pareto.json", "finalists.json", "result.json"):
        assert read(run / name) == read(whole / name), name
    assert logged(run) == logged(whole)
    assert read(run / "found.json")["cost"] == read(Path("found.json"))["cost"] == read(whole / "found.json")["cost"]
    assert "trials = 9" in (run / "recipe.toml").read_text()


def test_a_finished_search_goes_on_to_more_candidates_with_the_same_first(here, whole, monkeypatch):
    first, supernet = candidates(RUN), (RUN / "supernet.safetensors").stat().st_mtime_ns
    said = done(*EXTEND, "--trials", "9").out
    assert f"{RUN} has judged 4 candidates and goes on to 9" in said
    assert candidates(RUN)[:4] == first and (RUN / "supernet.safetensors").stat().st_mtime_ns == supernet
    same_as(whole, RUN)
    assert "--trials 18</code>" in (page := (RUN / "search.html").read_text())  # written again
    said_once = "--arch runs/search-1/found.json --recipe quick.toml</code>"  # when the run was begun
    assert page.count(said_once) == 3 and "next: nasaug netaug-train --arch found.json --recipe quick.toml\n" in said
    before = tree()
    assert "is finished already" in done(*EXTEND, "--trials", "9").out  # the same command again
    assert {path for path, held in tree().items() if before.get(path) != held} <= {f"{RUN}/.lock"}
    said = refused(*EXTEND, "--trials", "8")
    assert f"{RUN} has judged 9 candidates already, more than search.trials = 8; give at least 9" in said


def test_in_two_parts_and_without_a_name_it_comes_to_the_same(here, whole):
    for option in (("--trials", "6"), ("--set", "search.trials=9")):
        done("search", "--resume", *option)  # there is no unfinished search
    same_as(whole, RUN)
    assert "no unfinished run of search" in refused("search", "--resume")


@pytest.mark.parametrize("stopped", ["run", "_trial", "finalists", "_train"])
def test_stopped_while_it_goes_on_it_is_resumed_without_saying_so_again(here, whole, monkeypatch, stopped):
    owner = PlayOff if stopped == "_train" else Search
    done_before, times = getattr(owner, stopped), []

    def stop(*args):
        times.append(stopped)
        if stopped == "_trial" and len(times) < 3:
            return done_before(*args)
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(owner, stopped, stop)
        assert call(*EXTEND, "--trials", "9").code == 143
    assert not (RUN / "result.json").exists()
    done("search", "--resume")
    same_as(whole, RUN)


def test_stopped_before_it_goes_on_it_is_as_it_was(here, monkeypatch):
    before = tree()
    with monkeypatch.context() as patched:
        patched.setattr(search, "_extend", stop)
        assert call(*EXTEND, "--trials", "9").code == 143
    assert {path for path, held in tree().items() if before.get(path) != held} <= {f"{RUN}/.lock"}


@pytest.mark.parametrize("trials", [9, 3])
def test_an_unfinished_search_goes_on_to_more_candidates_or_fewer(here, whole, monkeypatch, trials):
    judge, times = Search._trial, []

    def stop(search):
        times.append(1)
        if len(times) > 2:
            raise Stopped(signal.SIGTERM)
        return judge(search)

    with monkeypatch.context() as patched:
        patched.setattr(Search, "_trial", stop)
        assert call(*SEARCH, "--trials", "6", "--run", "part").code == 143
    judged = len(candidates(Path("part")))
    if judged > 1:
        said = refused("search", "--resume", "--run", "part", "--trials", str(judged - 1))
        assert f"part has judged {judged} candidates already" in said
    done("search", "--resume", "--run", "part", "--trials", str(trials))
    assert candidates(Path("part")) == candidates(whole)[:trials]
    if trials == 9:
        same_as(whole, Path("part"))


def test_a_search_that_ran_out_of_time_goes_on_with_more(here, whole, monkeypatch):
    slow = Search._trial

    def hour_long(search):
        search.timeout = -1.0 if len(search.scores) == 4 else search.timeout
        return slow(search)

    with monkeypatch.context() as patched:
        patched.setattr(Search, "_trial", hour_long)
        done(*SEARCH, "--trials", "9", "--timeout", "1h", "--run", "slow")
    judged = read(Path("slow/result.json"))["candidates"]
    assert 4 <= judged < 9
    again = ("search", "--resume", "--run", "slow")
    assert "is finished already" in done(*again, "--timeout", "1h").out  # started with these options
    assert "more --trials, or another --timeout" in done(*again).out
    done(*again, "--timeout", "2h")
    same_as(whole, Path("slow"))
    assert json.loads(Path("slow/job.json").read_text())["timeout"] == 7200


def test_one_without_more_networks_to_judge_stays_as_it_is(here):
    done("search", *QUICK, "--mac-budget", "6k", "--run", "few")
    found = read(Path("few/result.json"))
    assert found["candidates"] < 4
    done("search", "--resume", "--run", "few", "--trials", "50")
    assert read(Path("few/result.json")) == found


# --- --pick: another net of the front becomes found.json ------------------------------------------------------


def test_a_finished_search_picks_again_without_training_and_back(here):
    before, start = read(RUN / "found.json"), tensorfile.read(RUN / "start.safetensors")[0]
    kept = {name: (RUN / name).read_bytes() for name in KEPT}
    rows = read(RUN / "pareto.json")["finalists"]
    done(*EXTEND, "--pick", "min-macs")
    found = read(Path("found.json"))
    assert found["cost"]["macs"] == min(row["macs"] for row in rows) and found["name"] == f"tiny:{rows[0]['id']}"
    assert read(RUN / "result.json")["found"] == found["name"]
    assert {name: (RUN / name).read_bytes() for name in KEPT} == kept
    assert 'pick = "min-macs"' in (RUN / "recipe.toml").read_text()
    assert "is finished already" in done("search", "--resume", "--pick", "min-macs").out  # the last run
    done(*EXTEND, "--pick", "best")
    assert read(RUN / "found.json") == before and read(Path("found.json"))["name"] == before["name"]
    again = tensorfile.read(RUN / "start.safetensors")[0]
    assert start.keys() == again.keys() and all(start[name].equal(again[name]) for name in start)


def test_each_net_of_the_fronts_is_an_arch_file_that_other_commands_take(here):
    rows = read(RUN / "pareto.json")
    names = {row["id"] for row in (*rows["front"], *rows["finalists"])}
    assert {path.stem for path in (RUN / "front").glob("*.json")} == names
    assert {path.stem for path in (RUN / "front").glob("*.safetensors")} >= {row["id"] for row in rows["finalists"]}
    trained = RUN / "front" / f"{rows['finalists'][0]['id']}.json"
    assert read(trained)["weights"].endswith(".safetensors")
    assert "peak SRAM" in done("profile", "--arch", str(trained)).out
    done("netaug-train", *QUICK, "--arch", str(trained), "--set", "epochs=1", "--run", "of-front")
    assert read(Path("of-front/result.json"))["init"] == "inherit"


def test_a_run_that_kept_no_weights_of_its_front_cannot_pick_again(here):
    shutil.rmtree(RUN / "front")
    said = refused(*EXTEND, "--pick", "knee")
    assert "kept the weights of the net found alone; leave --pick out, or start a new run" in said
    said = refused(*EXTEND, "--objectives", "accuracy,macs")
    assert "begun with other settings: search.objectives" in said
