"""Output of the commands: arch files, run folders and figures, and the references between them."""

import json
import os
import re
from pathlib import Path

import optuna
import pytest

from nasaug.arch import archfile
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.comparison import sweep, trainings
from nasaug.core.errors import BadInput
from nasaug.core.tensorfile import read
from nasaug.data import Data, DataConfig, load
from nasaug.methods import SandwichWithin
from nasaug.nas import search as search_command
from nasaug.pool import shared, storage
from nasaug.training.loop import Trainer
from support.commands import QUICK, SEARCH, TRAIN, call, calls_of, done, refused, timeless, tree

SUPERNET = Path("runs/search-1/supernet.safetensors")


def test_found_json_holds_what_was_found_and_where_it_came_from(finished, monkeypatch):
    monkeypatch.chdir(finished)
    data, found = json.loads(Path("found.json").read_text()), archfile.read("found.json")
    result = json.loads(Path("runs/search-1/result.json").read_text())
    assert data["format"] == "nasaug-arch/1" and data["data"] == "digits"
    assert data["budget"] == {"macs": 100_000}
    assert data["cost"] == cost(found.plan).known and data["cost"]["macs"] <= 100_000
    assert data["val_top1"] == result["val_top1"] == result["finalists"][0]["full_val_top1"]
    assert found.space.contains(found.arch) and found.space.name == "tiny"
    assert data["supernet"] == str(SUPERNET) and found.supernet.is_file()
    assert cost(plan(found.space, found.space.largest, 10)).macs <= 600_000  # the cropped space
    assert read(SUPERNET)[1]["plan"] == plan(found.space, found.space.largest, 10).to_dict()
    own = archfile.read("runs/search-1/found.json")
    assert own.plan == found.plan and own.supernet.samefile(found.supernet)


def test_a_run_holds_recipe_environment_log_and_figures(finished, monkeypatch):
    monkeypatch.chdir(finished)
    for run in (Path("runs/search-1"), Path("runs/netaug-train-1")):
        assert {"recipe.toml", "env.json", "log.jsonl", "result.json"} <= {p.name for p in run.iterdir()}
        assert not list(run.glob(".*.tmp")) and "seed = 0" in (run / "recipe.toml").read_text()
    assert {"pareto.png", "pareto.json", "candidates.json"} <= set(os.listdir("runs/search-1"))
    page, found = Path("runs/search-1/search.html").read_text(), archfile.read("found.json")
    assert "<code>nasaug netaug-train --arch runs/search-1/found.json --recipe quick.toml</code>" in page
    assert "<code>nasaug search --resume --run runs/search-1 --trials" in page and found.name in page
    assert page.count("<svg") == 3 and "MACs &lt;= 100k" in page
    result = json.loads(Path("runs/netaug-train-1/result.json").read_text())
    assert result["init"] == "inherit" and [row["epoch"] for row in result["val"]] == [1, 2]
    assert {"ladder", "augmented_over_base", "train_macs", "seconds", "test_top1"} <= result.keys()


@pytest.mark.parametrize(
    ("budgets", "most"),
    [
        (("--mac-budget", "5M", "--sram-budget", "1.2KB"), {"peak": 1229}),
        (("--mac-budget", "1G", "--param-budget", "1.3k"), {"params": 1300}),
        (("--flash-budget", "1.4KB", "--sram-budget", "2KB"), {"flash": 1434, "peak": 2048}),
    ],
)
def test_under_a_tight_budget_beside_a_loose_one_what_is_trained_and_found_is_within_it(
    laid_out, monkeypatch, budgets, most
):
    trained, of = [], SandwichWithin.passes
    monkeypatch.setattr(SandwichWithin, "passes", lambda method, draw: trained.append(of(method, draw)) or trained[-1])
    said = done("search", *QUICK, *budgets, "--trials", "6").out
    result = json.loads(Path("runs/search-1/result.json").read_text())
    space = archfile.read("found.json").space
    sampled = {each.arch for step in trained for each in step[-3:]}  # after the largest, if present, and the smallest
    for c in (result, *(cost(plan(space, arch, 10)).known for arch in sampled)):
        assert all(c[key] <= limit for key, limit in most.items())
    assert len(sampled) > 3 and result["candidates"] == 6 and "6 candidates at about" in said


def test_a_search_says_how_many_networks_there_are_where_these_are_fewer_than_its_trials(laid_out):
    said = done(*SEARCH[:-1], "8k", "--trials", "100").out
    count = json.loads(Path("runs/search-1/result.json").read_text())["candidates"]
    assert 1 < count < 100 and f"then the search: the {count} networks within the budget at about" in said


def test_a_space_of_what_is_within_reach_is_searched_and_its_supernet_teaches(laid_out):
    done("search", *QUICK, "--mac-budget", "30k", "--headroom", "2", "--set", "search.crop=reach")
    found, facts = archfile.read("found.json"), read(SUPERNET)[1]
    assert cost(found.plan).macs <= 30_000 and facts["most"] == 60_000
    assert cost(plan(found.space, found.space.largest, 10)).macs > 60_000  # which was never run
    assert found.space.axes[found.space.index["stem.stride"]].choices == (2, 1)
    done("train", *QUICK, "--arch", "found.json", "--method", "baseline+distill", "--run", "taught")
    assert json.loads(Path("taught/result.json").read_text())["test_top1"] > 0


def test_a_search_without_a_supernet_finds_a_net_that_goes_on_from_its_own_weights(laid_out):
    said = done("search", *QUICK, "--mac-budget", "60k", "--strategy", "halving", "--set", "search.finalists=3").out
    assert "no supernet; 3 finalists" in said and "3 finalists, trained from fresh weights" in said
    data, result = json.loads(Path("found.json").read_text()), json.loads(Path("runs/search-1/result.json").read_text())
    assert "supernet" not in data and data["weights"] == "runs/search-1/start.safetensors"
    assert not SUPERNET.exists() and Path("runs/search-1/pareto.png").is_file()
    assert [row["rounds"] for row in result["finalists"]] == [1, 1, 1] and result["macs"] <= 60_000
    page = Path("runs/search-1/search.html").read_text()
    assert "without a supernet" in page and "<h2>Candidates" not in page and "--resume" not in page
    before = tree()
    for trials in (50, 2):  # of which it has no use
        said = done("search", "--resume", "--run", "runs/search-1", "--set", f"search.trials={trials}").out
        assert "is finished already" in said and "--trials" not in said
    assert {path for path, held in tree().items() if before.get(path) != held} <= {"runs/search-1/.lock"}
    said = done("netaug-train", *QUICK, "--arch", "found.json", "--set", "epochs=1").out
    assert "those of the net in" in said
    assert json.loads(Path("runs/netaug-train-1/result.json").read_text())["ladder"] == "factors"
    assert "--strategy \"halve\": must be" in refused("search", *QUICK, "--mac-budget", "60k", "--strategy", "halve")
    halving = ("search", *QUICK, "--mac-budget", "60k", "--strategy", "halving")
    assert "--trials 9 has no use in a search without a supernet" in refused(*halving, "--trials", "9")
    more = ("search", "--resume", "--run", "runs/search-1", "--trials", "50")
    assert "--trials 50 has no use in a search without a supernet" in refused(*more)


def test_nets_that_would_be_trained_for_too_few_epochs_are_left_out_and_that_is_said(laid_out):
    """48 images: an epoch of a net of 60k MACs costs 2.88M."""
    length = ("--set", "epochs=auto", "--set", "train_macs=2.88e7", "--set", "search.least_epochs=10")
    said = done("search", *QUICK, *length, "--mac-budget", "1M", "--set", "search.trials=2").out
    assert "nets above 60k MACs are left out: with train_macs = 2.9e+07 they would be trained for fewer than 10" in said
    assert cost(archfile.read("found.json").plan).macs <= 60_000
    assert "of the 1M MACs: nets above 60k would be trained for too few epochs" in said
    assert json.loads(Path("found.json").read_text())["budget"] == {"macs": 1_000_000}


# --- who sees which images --------------------------------------------------------------------------------------


def test_a_search_never_reads_the_test_images(laid_out, monkeypatch):
    def read_early(data):
        raise AssertionError("the test images were asked for")

    monkeypatch.setattr(Data, "finish", read_early)
    done(*SEARCH)


def test_a_training_reads_the_test_images_once_after_its_last_evaluation(here, monkeypatch):
    events = calls_of(monkeypatch, (Data, "finish"), (Trainer, "end_epoch"), (Trainer, "train_step"))
    done(*TRAIN, "--run", "r")
    assert events.count("finish") == 1 and events[-1] == "finish" and events.count("end_epoch") == 2


@pytest.mark.parametrize(
    ("arm", "what"),
    [("baseline:init=inherit", "runs/search-1/start.safetensors had"),
     ("baseline+distill:source=runs/netaug-train-1", "the teacher runs/netaug-train-1 had"),
     ("baseline+scratch+distill", "the teacher runs/search-1/supernet.safetensors had")],
)  # fmt: skip
def test_weights_and_teachers_that_were_trained_with_other_splits_are_told_of(here, arm, what):
    train = ("train", *QUICK, "--arch", "found.json", "--method", arm)
    assert "warning" not in done(*train, "--run", "same").out
    other = ("--set", "data.split_seed=1")
    assert f"{what} other validation images" in done(*train, *other, "--run", "other").out
    again = ("train", *QUICK, "--arch", "other/arch.json", "--method", "distill:source=other", *other, "--run", "again")
    assert "the teacher other had other validation images" in done(*again).out  # learnt from what had


def test_a_curve_that_was_fitted_on_other_data_is_told_of_by_all_that_follow_one(here, monkeypatch):
    def stop(*args):
        raise BadInput("enough")

    line = {"intercept": -7.0, "slope": 3.0, "low": 0.0, "high": 30.0, "data": "photos", "data_key": "other"}
    Path("curve.json").write_text(json.dumps({"format": "nasaug-curve/1", **line}))
    told = "warning: {}: its curve was fitted on photos, these are digits; it may not suit these data"
    follow = ("--set", "views.train.policy=randaugment", "--set", "views.train.magnitude=curve.json")
    by_key = told.format("views.train.magnitude")
    assert by_key in done("train", *QUICK, "--arch", "found.json", "--method", "baseline", *follow, "--run", "r").out
    smaller = ("--target-macs", str(cost(archfile.read("r/arch.json").plan).macs - 1), "--steps", "1")
    assert by_key in done("prune", "--from", "r", *smaller, "--recipe", "quick.toml", *follow).out
    for owner, verb in ((trainings, "estimate"), (sweep, "train_missing"), (search_command, "run_search")):
        monkeypatch.setattr(owner, verb, stop)
    Path("follow.toml").write_text('views.train.policy = "randaugment"\nviews.train.magnitude = "curve.json"\n')
    arms = "baseline+follow.toml,netaug+follow.toml,gradaug"  # the last inherits from none
    compare = ("compare", *QUICK, "--arch", "found.json", "--methods", arms, "--seeds", "1")
    assert call(*compare).out.count(by_key) == 1
    grid = ("sweep", *QUICK, "--sizes", "found.json", "--policies", "9,curve.json", "--seeds", "1")
    assert told.format("--policies curve.json") in call(*grid).out
    assert by_key in call(*SEARCH, *follow).out


def test_a_model_says_how_its_images_are_prepared(finished, monkeypatch):
    monkeypatch.chdir(finished)
    told = read("runs/netaug-train-1/model.safetensors")[1]
    data = load(DataConfig(name="digits", train_images=48, val_images=40))
    assert (told["mean"], told["std"], told["classes"]) == (list(data.mean), list(data.std), list(data.classes))
    assert min(told["std"]) > 0 and told["classes"] == [str(i) for i in range(10)]


def test_moved_together_found_json_and_runs_still_work(here, monkeypatch):
    os.rename(here, here.parent / "elsewhere")
    monkeypatch.chdir(here.parent / "elsewhere")
    done(*TRAIN, "--run", "r")
    assert json.loads(Path("r/result.json").read_text())["init"] == "inherit"


def test_the_arch_of_a_run_is_an_arch_file_like_any_other(here):
    done("train", *QUICK, "--method", "baseline", "--arch", "runs/netaug-train-1/arch.json", "--run", "r")
    result = json.loads(Path("r/result.json").read_text())
    assert result["method"] == "baseline" and result["init"] == "inherit"
    assert archfile.read("r/arch.json").plan == archfile.read("found.json").plan


def test_a_named_architecture_is_trained_at_the_resolution_of_the_data(here):
    done("train", *QUICK, "--method", "baseline", "--arch", "mobilenetv2-tiny", "--run", "r")
    assert archfile.read("r/arch.json").plan.resolution == 28


def test_a_new_search_replaces_found_json_and_takes_the_next_run(here):
    done(*SEARCH, "--seed", "1")
    assert archfile.read("found.json").supernet.parts[-2] == "search-2"
    assert {"search-1", "search-2"} <= set(os.listdir("runs"))


def test_a_run_folder_may_have_any_name(here):
    run = "my run?/50% #1"
    done(*SEARCH, "--run", run)
    assert Path(run, "study.db").is_file() and sorted(os.listdir()) == sorted(
        ["found.json", "my run?", "quick.toml", "runs", "tiny.toml"]
    )


def test_a_storage_of_ones_own_holds_one_search(here):
    storage = ("--storage", "sqlite:///mine.db")
    done(*SEARCH, *storage)
    assert Path("mine.db").is_file() and not Path("runs/search-2/study.db").exists()
    told = f"--storage sqlite:///{Path('mine.db').absolute()} holds another run's study"
    assert told in refused(*SEARCH, *storage)


@pytest.mark.parametrize("arch", ["found.json", "runs/netaug-train-1/arch.json", "mobilenetv2-tiny"])
def test_profile_shows_what_the_cost_model_says(here, arch):
    found = archfile.read(arch)
    shown = json.loads(done("profile", "--arch", arch, "--json").out)
    total = cost(found.plan)
    assert all(type(shown[key]) is int for key in ("macs", "params", "peak", "flash"))
    assert {key: shown.get(key) for key in total._fields} == total._asdict()
    assert sum(layer["macs"] for layer in shown["layers"]) == total.macs
    table = done("profile", "--arch", arch).out
    assert f"{total.macs:,} MACs, {total.params:,} parameters" in table and "stem" in table
    other = json.loads(done("profile", "--arch", arch, "--json", "--resolution", "192", "--classes", "7").out)
    assert (other["resolution"], other["classes"]) == (192, 7) and other["macs"] > total.macs


def test_a_search_on_an_image_folder_and_its_training_without_more_options(photos):
    done(*SEARCH, *photos)
    Path("nameless.toml").write_text(Path("quick.toml").read_text().replace('name = "digits"', ""))
    train = ("netaug-train", "--arch", "found.json", "--set", "data.train_images=0")
    done(*train, "--recipe", "nameless.toml", "--run", "r")
    assert json.loads(Path("r/result.json").read_text())["data"] == "photos"
    done(*train, "--recipe", "quick.toml", "--run", "q")  # the data that a recipe names are used
    assert json.loads(Path("q/result.json").read_text())["data"] == "digits"


def test_a_resumed_search_counts_the_seconds_of_all_its_trials(here):
    Path("runs/search-1/result.json").unlink()
    before = json.loads(Path("runs/search-1/candidates.json").read_text())
    done("search", "--resume")
    assert json.loads(Path("runs/search-1/candidates.json").read_text()) == before
    study = optuna.load_study(study_name="nasaug", storage="sqlite:///runs/search-1/study.db")
    took = sum(t.duration.total_seconds() for t in study.trials)
    assert took > 0 and json.loads(Path("runs/search-1/result.json").read_text())["search_seconds"] >= round(took, 1)


def test_a_run_keeps_no_password_of_its_storage(here, monkeypatch):
    """The address is that of a local file, whatever user it names."""
    opened = storage.unchecked_storage
    for owner in (storage, shared):
        monkeypatch.setattr(owner, "unchecked_storage", lambda url, retry=None: opened("sqlite:///mine.db"))
    address = "postgresql://me:secret@host/studies"
    done(*SEARCH, "--storage", address, "--run", "r")
    assert not any(b"secret" in p.read_bytes() for p in Path("r").rglob("*") if p.is_file())
    Path("r/result.json").unlink()
    assert "keeps no passwords: give its --storage again" in refused("search", "--resume", "--run", "r")
    done("search", "--resume", "--run", "r", "--storage", address)
    assert Path("r/result.json").is_file()


def test_streamed_images_are_trained_and_judged_like_those_in_memory(photos):
    """Decoded by workers for calibration, training and evaluation at the net's resolution; --profile shows the rate."""
    train = ("train", *QUICK, *photos, "--method", "netaug", "--arch", "found.json", "--set", "data.memory_mb=0")
    shown = done(*train, "--profile", "--run", "r").out
    images, rate = re.search(r"decoding: ([\d,]+) images, ([\d,]+) per second and worker", shown).groups()
    result = json.loads(Path("r/result.json").read_text())
    assert int(images.replace(",", "")) == 2 * 4 * 16 and int(rate.replace(",", "")) > 0
    assert result["mean"] == pytest.approx([0.485, 0.456, 0.406]) and 0 < result["test_top1"] <= 100
    done(*train, "--run", "again")
    again = json.loads(Path("again/result.json").read_text())
    assert timeless(again) == timeless(result)


def test_profile_shows_the_rate_of_each_stage(here):
    shown = done("train", *QUICK, "--method", "baseline", "--arch", "found.json", "--run", "r", "--profile").out
    lines = shown[shown.index("where the time went") :].splitlines()
    rates = {line.split()[0]: line.split()[3:] for line in lines[2:10]}
    assert set(rates) == {"load", "copy", "augment", "forward", "backward", "optimise", "evaluate", "other"}
    assert int(rates["forward"][0].replace(",", "")) > 0 and not rates["evaluate"]
    assert "where the time went" not in done(*TRAIN, "--run", "q").out
