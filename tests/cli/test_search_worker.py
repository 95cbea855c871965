"""`search-worker`: what it does for a search, and what is refused."""

import json
import shutil

from nasaug.rundirs.folder import RunDir
from support.commands import SEARCH, call, done, refused


def test_it_says_so_if_the_search_is_finished(laid_out):
    done(*SEARCH, "--run", "r")
    assert "r is finished already" in done("search-worker", "--run", "r").out
    (laid_out / "r" / "result.json").unlink()
    RunDir("r").note(ranks=2)
    assert "--run r is searched by processes that torchrun started" in refused("search-worker", "--run", "r")
    RunDir("r").note(ranks=1)
    before = {path.name for path in (laid_out / "r").iterdir()}
    said = done("search-worker", "--study", f"sqlite:///{laid_out}/r/study.db").out
    assert "nothing is left to begin; 4 candidates of" in said
    assert {path.name for path in (laid_out / "r").iterdir()} == before
    told = refused("search-worker", "--run", "r", "--study", f"sqlite:///{laid_out}/other.db")
    assert "/other.db is not the storage of r, which is in its folder; leave it out" in told and "--study" in told
    other = shutil.copytree(laid_out / "r", laid_out / "other")
    (other / "supernet.safetensors").unlink()
    assert "supernet" in refused("search-worker", "--run", "other")


def test_one_on_another_kind_of_device_is_refused_for_what_it_is(laid_out):
    """Without train_macs, lengths and the nets worth training depend on whether there is an accelerator."""
    done(*SEARCH, "--run", "r", "--set", "train_macs=auto", "--set", "epochs=1")
    (laid_out / "r" / "result.json").unlink()
    job = laid_out / "r" / "job.json"
    kept = json.loads(job.read_text())
    assert kept["accelerated"] is False
    job.write_text(json.dumps(kept | {"accelerated": True}))
    rule = "r was begun on an accelerator, for which the lengths of its trainings were chosen; go on where there is one"
    for words in (("search-worker", "--run", "r"), ("search", "--run", "r", "--resume")):
        assert rule in refused(*words, "--device", "cpu")
    job.write_text(json.dumps(kept))
    assert "nothing is left to begin" in done("search-worker", "--run", "r").out


def test_what_is_refused(laid_out):
    assert "needs --run, the folder of a search, or --study, its storage" in refused("search-worker")
    assert "--run nowhere is no folder" in refused("search-worker", "--run", "nowhere")
    (laid_out / "empty").mkdir()
    assert "a search in empty is not there yet" in refused("search-worker", "--run", "empty")
    assert "--wait 2x" in refused("search-worker", "--run", "empty", "--wait", "2x")
    told = call("search-worker", "--study", "sqlite:///none.db")
    assert told.code == 2 and "holds no study" in told.err and told.err.count("\n") == 1
    told = refused("search-worker", "--study", "nodatabase://me:hidden-word@x/y")
    assert "hidden-word" not in told and "me:***@x" in told
