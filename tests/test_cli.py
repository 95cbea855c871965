"""The command line as a new user and as a hostile one meets it: what it refuses, what it leaves, what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny import QUICK, SEARCH, SPACE, TRAIN, Child, call, done, lay_out, tree

from nasaug import archfile, cli, rundir
from nasaug.checkpoint import read
from nasaug.cost import Budget, cost, reach
from nasaug.errors import BadInput
from nasaug.plan import BLOCKS
from nasaug.spacefile import load

VERBS = ("search", "netaug-train", "train", "profile")


@pytest.fixture(autouse=True)
def no_data_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("NASAUG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which both commands were run, one after the other."""
    folder = tmp_path_factory.mktemp("finished")
    lay_out(folder)
    before = os.getcwd()
    os.chdir(folder)
    done(*SEARCH)
    done(*TRAIN)
    os.chdir(before)
    return folder


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of it, the working folder."""
    folder = shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


def refused(*args, code=2):
    """What a command says that ends with `code`; it must be one line, and nothing may have changed."""
    before = tree()
    called = call(*args)
    assert called.code == code, (called.code, called.err)
    assert re.fullmatch(r"nasaug: [^\n]+\n", called.err), called.err
    assert tree() == before
    return called.err


def words(line):
    """The arguments in a line; the quick recipe is added where it names none."""
    args = shlex.split(line)
    quick = () if "--recipe" in args or args[0] == "profile" or "--resume" in args else QUICK
    return (*args, *quick)


# --- what is refused -------------------------------------------------------------------------------------------

REFUSED = {
    "": {
        "nonsense": 'Unknown command "nonsense".*search, netaug-train, train, profile.*--help',
        "search extra": "extra.*--help", "search --trails 5": "--trails.*--trials.*--help",
        "netaug-train": "needs --arch: an arch file like found.json, or a named", "train": "needs --arch",
        "profile": "--arch requires an argument.*--help",
    },
    "search --data": {
        "fashion": "unknown data set 'fashion'; did you mean fashion-mnist.*digits.*image folder",
        "/no/such": "no folder '/no/such': give the path.*digits", "''": "unknown data set ''",
        "quick.toml": "unknown data set 'quick.toml'", "runs": "'.*runs' has no images in|class folders",
        "$'a\\nb'": "unknown data set",
    },
    "search --recipe": {
        "smal": "unknown recipe 'smal'; did you mean small", "none.toml": "cannot read none.toml: No such file",
        "''": "unknown recipe ''", "tiny.toml": "tiny.toml: unknown key 'format'; .*choices: batch",
        "found.json": "found.json: not valid TOML.*line 1", "runs": "unknown recipe 'runs'",
        "x" * 300: "unknown recipe",
    },
    "search --space": {
        "mobilenet": "unknown search space 'mobilenet'; did you mean mobilenetv", "''": "unknown search space ''",
        "none.toml": "cannot read none.toml: No such file", "quick.toml": 'quick.toml.*"nasaug-space/1"',
    },
    "search --sampler": {"cma": "cma.*'tpe', 'nsga2' or 'random'", "''": "'tpe', 'nsga2' or 'random'"},
    "search": {
        "--mac-budget 25Q": "--mac-budget 25Q: .* number of MACs.*25M, 1.5G, 300k", "--mac-budget 0": "above 0",
        "--mac-budget=-1": "--mac-budget -1: .*above 0", "--mac-budget ''": "--mac-budget : .*above 0",
        "--mac-budget nan": "'nan'.*25M", "--mac-budget 1e999": "'1e999'.*25M", "--mac-budget inf": "'inf'.*25M",
        "--mac-budget": "--mac-budget requires an argument", "--param-budget 1.2.3": "--param-budget 1.2.3: .*300k",
        "--sram-budget '10 miles'": "--sram-budget 10 miles: .*320KB", "--flash-budget 1MACs": "--flash-budget.*1MB",
        "--mac-budget 2k": "--mac-budget 2k is impossible in space tiny.*MACs; ask for at least",
        "--param-budget 1": "--param-budget 1 is impossible.*parameters; ask", "--sram-budget 9": "9 B is imposs",
        "--flash-budget 9": "--flash-budget 9 B is impossible", "--trials 0": "search.trials = 0 must be at least 1",
        "--trials=-1": "search.trials = -1 must be at least 1", "--trials abc": "--trials: 'abc' is not a whole",
        "--trials 1.5": "'1.5' is not a whole number", f"--trials {10**20}": "search.trials = 1000",
        "--headroom 0.5": "headroom = 0.5 must be 0.*or at least 1", "--headroom=-1": "must be 0.*or at least 1",
        "--headroom nan": "NaN", "--headroom abc": "--headroom.*abc", "--timeout junk": "--timeout junk: .*like 90s",
        "--timeout 0": "--timeout 0: .*above 0", "--timeout=-1s": "--timeout -1s: .*above 0",
        "--storage junk": "--storage junk: .*sqlite:///", "--storage ''": "--storage : .*sqlite:///",
        "--storage sqlite:////no/such/x.db": "unable to open database file; give a URL",
        "--storage redis://x": "--storage redis://x.*sqlite:///", "--storage journal:/no/such/x": "No such file",
        "--mac-budget 2k --storage sqlite:///new.db": "impossible", "--seed=-1": "seed = -1.*at least 0",
        "--seed x": "--seed: 'x' is not a whole number", f"--seed {10**20}": "seed = 1000",
        "--device gpu": "unknown --device 'gpu'; did you mean cpu.*auto, cpu, cuda", "--device ''": "auto, cpu",
        "--device cuda": "no CUDA device is visible.*--device cpu", "--run runs/search-1": "--run runs/search-1 exists",
        "--run found.json": "--run found.json exists", "--run found.json/x": "Not a directory",
        "--run /proc/no/such": "cannot write /proc/no/such", "--run " + "x" * 300: "File name too long",
    },
    "search --set": {
        "=": "--set '=': must be key=value, like epochs=2", "epochs": "must be key=value", "=5": "key=value",
        "epochs=0": "epochs = 0 must be at least 1", "epochs=many": "epochs = \"many\": must be.*'auto'",
        "epoch=2": "unknown key 'epoch'; did you mean epochs", "netaug.alpha=1": "unknown key 'netaug.alpha'",
        "netaug=1": "netaug = 1: must be a table", "lr=nan": "lr = NaN: must be a finite", "lr=-1": "lr must be",
        "momentum=-1": "momentum", "momentum=1": "momentum", "weight_decay=-1": "weight_decay", "warmup=1": "warmup",
        "batch=1": "batch = 1 must be at least 2", "method=gradaug": "'baseline' or 'netaug'", "seed=-1": "seed = -1",
        "data.train_images=5": "data.train_images = 5, but.*10 to 1397", "sandwich.samples=-1": "not be negative",
        "data.train_images=99999": "but 'digits' has 1397", "views.train.crop=9": "crop = 9.0 is not.*0.5",
        "netaug.width_factors=[2.0,1.0]": "netaug.width_factors.*rise from 1.0",
    },
    "search --trials 3 --set": {"search.trials=4": "--set search.trials=… says what.*an option says too"},
    "netaug-train --arch": {
        "mobilenetv2-tinny": "unknown architecture 'mobilenetv2-tinny'; did you mean mobilenetv2-tiny", "''": "''",
        "none.json": "cannot read none.json: No such file or directory; give the path", "runs": "runs: Is a directory",
        "no/such": "cannot read no/such", "tiny.toml": "tiny.toml, line .: broken or cut-off JSON",
        "runs/search-1/pareto.png": "not a text file", "runs/search-1/result.json": "'nasaug-arch/1' is needed",
        "$'a\\nb.json'": "cannot read a b.json", "x" * 300: "unknown architecture",
    },
    "netaug-train --arch found.json": {
        "--resolution 0": "--resolution 0 must be 8 to 1024", "--resolution 100000": "must be 8 to 1024",
        "--resolution=-8": "must be 8 to 1024", "--resolution 1.5": "'1.5' is not a whole number",
        "--set method=baseline": "--set method=… says what the command", "--run runs/netaug-train-1": "exists and is",
        "--set init=inherit --from-scratch": "--set init=… says what", "--set netaug.ladder=x": "'supernet' or 'fac",
        "--set data.name=digit": "unknown data set 'digit'; did you mean digits", "--device gpu": "unknown --device",
    },
    "netaug-train --arch mobilenetv2-small --set": {
        "init=inherit": "init = inherit: the arch mobilenetv2-small names no supernet; use --from-scratch",
        "netaug.ladder=supernet": "needs an arch file that a search wrote.*netaug.ladder=factors",
    },
    "train --arch found.json --method": {
        "gradaug": "unknown --method 'gradaug'; choices: baseline, netaug", "''": "unknown --method ''",
        "netag": "did you mean netaug",
    },
    "profile --arch": {
        "none.json": "cannot read", "found.json --resolution 0": "must be 8 to 1024", "runs": "Is a directory",
        "found.json --resolution 1025": "must be 8 to 1024", "found.json --classes 0": "--classes 0 must be at least 1",
        "found.json --classes=-1": "must be at least 1", "found.json --classes x": "'x' is not a whole number",
    },
    "search --resume": {
        "": "no unfinished run of search in ./runs; name one with --run", "--run no": "no is not a run to resume",
        "--run runs": "not a run to resume", "--run found.json": "not a run to resume; there are: none",
        "--run runs/netaug-train-1": "is a run of netaug-train, not of search; resume it with: nasaug netaug-train",
        "--run runs/search-1 --mac-budget 99k": "was begun under MACs <= 100k, not MACs <= 99k; start a new run",
        "--run runs/search-1 --set epochs=7": r"epochs \(begun with 2, asked 7\)",
        "--run runs/search-1 --seed 1": r"with other settings: seed \(begun with 0, asked 1\); resume",
        "--run runs/search-1 --trials 9": r"search.trials \(begun with 4, asked 9\)",
        "--run runs/search-1 --storage sqlite:///x.db": "was begun with another --storage",
    },
    "netaug-train --resume": {
        "": "no unfinished run of netaug-train", "--run runs/search-1": "is a run of search, not of netaug-train",
        "--run runs/netaug-train-1 --seed 1": r": seed \(begun with 0, asked 1\); resume",
        "--run runs/netaug-train-1 --arch mobilenetv2-small": "trains tiny:.* px, not what is asked",
        "--run runs/netaug-train-1 --resolution 16": "px, not what is asked; leave --arch and --resolution out",
        "--run runs/netaug-train-1 --from-scratch": r"init \(begun with auto, asked scratch\)",
    },
    "train --resume": {"--run runs/netaug-train-1": "is a run of netaug-train, not of train"},
}  # fmt: skip
LINES = [(f"{start} {end}".strip(), said) for start, rows in REFUSED.items() for end, said in rows.items()]


@pytest.fixture(scope="module")
def untouched(finished, tmp_path_factory):
    """One copy for all refusals, which leave it as it is."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("refusals") / "here")


@pytest.mark.parametrize(("line", "said"), LINES, ids=[line[:60] for line, _ in LINES])
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(untouched, monkeypatch, line, said):
    monkeypatch.chdir(untouched)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = line.replace("$'a\\nb", "'a\nb")  # as a shell would
    assert re.search(said, refused(*words(line)))


BROKEN_SPACES = {
    "[[stage]]\nname =": "mine.toml: not valid TOML.*line",
    SPACE.replace("kernel = [3, 5]", "kernel = [3, 4]"): "s1.b1.kernel = 4 must be odd",
    SPACE.replace("width = [8, 16]", "width = [16, 8]"): r"stem.width = \[16, 8\] must .*rise",
    SPACE.replace("stride = [2, 1]", "stride = [1, 2]"): r"stem.stride = \[1, 2\] must .*fall",
    SPACE.replace("stride = 2", "stride = 0"): "stride",
    SPACE.replace('name = "s1"', 'name = "stem"'): "two stages are named 'stem'",
    SPACE.replace('block = "inverted"', 'block = "invertd"'): "'invertd'; did you mean inverted",
    SPACE.replace("expand =", "expnd ="): "'expnd'; did you mean expand",
    SPACE.replace("resolution = [8, 12]", 'resolution = "big"'): "resolution",
    SPACE.replace("[[stage]]", "[stage]", 1): "mine.toml",
    SPACE.split("[[stage]]")[0]: r"needs at least one \[\[stage\]\]",
    "": "mine.toml.*nasaug-space/1",
}


@pytest.mark.parametrize("text", BROKEN_SPACES, ids=list(map(str, range(len(BROKEN_SPACES)))))
def test_a_space_that_breaks_the_rules_is_refused(here, text):
    Path("mine.toml").write_text(text)
    assert re.search(BROKEN_SPACES[text], refused(*SEARCH, "--space", "mine.toml"))


def test_a_recipe_without_the_view_that_methods_need_is_refused(here):
    Path("mine.toml").write_text('base = "quick.toml"\n[views.weak]\nflip = true\n')
    assert "[views.train]" in refused("netaug-train", "--recipe", "mine.toml", "--arch", "found.json")


def test_the_smallest_budget_that_a_refusal_names_is_possible(empty_folder):
    space = load("mobilenetv2-small", BLOCKS)
    for key in ("macs", "params", "peak", "flash"):
        with pytest.raises(BadInput) as refusal:
            reach(space, Budget(**{key: 1}), 10)
        smallest = str(refusal.value).partition("smallest")[2]
        named = [Budget.parse(**{key: text}) for text in re.findall(r"[\d.]+ ?[kMKB]+|\d+", smallest)]
        assert reach(space, max(named, key=lambda budget: budget.limits[key]), 10).smallest


# --- a world that is not as it should be -----------------------------------------------------------------------


def test_found_json_as_a_folder_is_refused_before_the_search(here):
    os.remove("found.json")
    os.mkdir("found.json")
    assert "found.json is a folder here" in refused(*SEARCH)


def test_a_working_folder_that_cannot_be_written_to_is_refused(here, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot write found.json into" in refused(*SEARCH)


def test_a_folder_for_runs_that_cannot_be_made_is_refused(here, monkeypatch):
    shutil.rmtree("runs")
    Path("runs").write_text("mine")
    assert "cannot write runs/" in refused(*SEARCH)
    assert "cannot write runs/" in refused("train", *QUICK, "--method", "baseline", "--arch", "mobilenetv2-small")


SUPERNET = Path("runs/search-1/supernet.safetensors")


def test_a_missing_or_damaged_supernet_is_refused(here):
    whole = SUPERNET.read_bytes()
    os.remove(SUPERNET)
    said = refused(*TRAIN)
    assert f"supernet {SUPERNET} that the arch file names is missing; restore it, or use --from-scratch" in said
    SUPERNET.write_bytes(whole[: len(whole) // 2])
    assert f"{SUPERNET} is truncated" in refused(*TRAIN)
    SUPERNET.write_bytes(Path("runs/netaug-train-1/checkpoint.safetensors").read_bytes())
    assert f"{SUPERNET} holds no plan" in refused(*TRAIN)
    SUPERNET.write_bytes(Path("runs/netaug-train-1/model.safetensors").read_bytes())
    done(*TRAIN)  # the trained subnet does hold itself
    assert done(*TRAIN, "--from-scratch").code == 0


def test_a_supernet_too_small_is_refused(here):
    small = archfile.ArchFile(load_smallest(), "small")
    small.save("small.json")
    done("train", *QUICK, "--method", "baseline", "--arch", "small.json", "--run", "small")
    SUPERNET.write_bytes(Path("small/model.safetensors").read_bytes())
    assert f"{SUPERNET} does not hold tiny:" in refused(*TRAIN)


def load_smallest():
    found = archfile.read("found.json")
    specs = [block.spec for block in found.plan.blocks]
    narrow = [spec._replace(width=4) if spec.name == "stem" else spec for spec in specs]
    return archfile.plans.from_specs(narrow, found.plan.resolution, 10)


def test_an_edited_arch_file_is_refused(here):
    data = json.loads(Path("found.json").read_text())
    data["choices"]["stem.width"] = 24 - data["choices"]["stem.width"]
    Path("found.json").write_text(json.dumps(data))
    assert "found.json: its choices do not give its plan" in refused(*TRAIN)
    assert "found.json: its choices do not give its plan" in refused("profile", "--arch", "found.json")


@pytest.fixture
def photos(here):
    """An image folder of three classes, grey, 12 px."""
    for i in range(90):
        folder = Path("photos", "abc"[i % 3])
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 12), i).save(folder / f"{i}.png")
    return ("--data", "photos", "--set", "data.train_images=0")


def test_unreadable_images_are_refused(photos):
    Path("photos/b/4.png").write_bytes(Path("photos/b/1.png").read_bytes()[:60])
    for command in (SEARCH, TRAIN):
        assert re.search(r"1 of .* images cannot be read, such as .*photos/b/4.png.*remove", refused(*command, *photos))
    Path("photos/b/4.png").write_text("no image")
    assert "photos/b/4.png" in refused(*SEARCH, *photos)


def test_a_found_subnet_on_data_of_other_classes_starts_from_scratch(photos):
    done(*TRAIN, *photos, "--run", "other")
    result = json.loads(Path("other/result.json").read_text())
    assert (result["init"], result["classes"], result["data"]) == ("scratch", ["a", "b", "c"], "photos")
    assert archfile.read("other/arch.json").plan.classes == 3
    assert "names no supernet; use --from-scratch" in refused(*TRAIN, *photos, "--set", "init=inherit")


def test_a_search_on_an_image_folder_and_its_training_without_more_options(photos):
    done(*SEARCH, *photos)
    done(*TRAIN, "--set", "data.train_images=0", "--run", "r")
    assert json.loads(Path("r/result.json").read_text())["data"] == "photos"


def faulty(called):
    """The one line that a fault in the run ends with, after what it said before."""
    lines = called.err.splitlines()
    assert called.code == 1 and "Traceback" not in called.err, called.err
    assert [line for line in lines if line.startswith("nasaug: ")] == lines[-1:], called.err
    return lines[-1]


def test_a_loss_that_is_no_number_is_a_fault(here):
    assert "loss is nan" in (said := faulty(call(*TRAIN, "--set", "lr=1e30"))) and "--set lr=5e+29" in said


def test_too_little_memory_is_a_fault(here, monkeypatch):
    def greedy(*args, **kwargs):
        import torch

        torch.empty(2**60)

    monkeypatch.setattr("nasaug.apps.train.run_training", greedy)
    assert "out of memory; start anew with a lower batch" in faulty(call(*TRAIN))


@pytest.mark.parametrize("command", [SEARCH, TRAIN], ids=["search", "train"])
@pytest.mark.parametrize("largest", [0, 600, 5_000, 20_000, 30_000, 45_000, 80_000])
def test_a_disk_that_takes_no_more_is_a_fault_wherever_it_happens(here, command, largest):
    """No file may grow beyond `largest` bytes; whatever is written then fails, in the run's folder alone."""
    before = {path: held for path, held in tree().items() if path != "runs"}
    called = Child(here, *command, "--run", "full", largest=largest).end()
    if called.code == 0:
        assert command == TRAIN and largest >= 30_000  # all its files are smaller
        return
    faulty(called)
    assert Path("full").exists() == (largest > 1_000)  # below that, not even the run's first files fit
    after = tree()
    assert {path: after.get(path) for path in before} == before
    shutil.rmtree("full", ignore_errors=True)
    assert {path for path in tree() if path not in before} <= {"runs"}


# --- what is made -----------------------------------------------------------------------------------------------


def test_found_json_holds_what_was_found_and_where_it_came_from(finished, monkeypatch):
    monkeypatch.chdir(finished)
    data, found = json.loads(Path("found.json").read_text()), archfile.read("found.json")
    result = json.loads(Path("runs/search-1/result.json").read_text())
    assert data["format"] == "nasaug-arch/1" and data["budget"] == {"macs": 100_000} and data["data"] == "digits"
    assert data["cost"] == cost(found.plan)._asdict() and data["cost"]["macs"] <= 100_000
    assert data["val_top1"] == result["val_top1"] == result["finalists"][0]["full_val_top1"]
    assert found.space.contains(found.arch) and found.space.name == "tiny"
    assert data["supernet"] == str(SUPERNET) and found.supernet.is_file()
    assert cost(archfile.plans.plan(found.space, found.space.largest, 10)).macs <= 600_000  # the cropped space
    assert read(SUPERNET)[1]["plan"] == archfile.plans.plan(found.space, found.space.largest, 10).to_dict()
    own = archfile.read("runs/search-1/found.json")
    assert own.plan == found.plan and own.supernet.samefile(found.supernet)


def test_a_run_holds_recipe_environment_log_and_figures(finished, monkeypatch):
    monkeypatch.chdir(finished)
    for run in (Path("runs/search-1"), Path("runs/netaug-train-1")):
        assert {"recipe.toml", "env.json", "log.jsonl", "result.json"} <= {p.name for p in run.iterdir()}
        assert not list(run.glob(".*.tmp")) and "seed = 0" in (run / "recipe.toml").read_text()
    assert {"pareto.png", "pareto.json", "candidates.json"} <= {p.name for p in Path("runs/search-1").iterdir()}
    result = json.loads(Path("runs/netaug-train-1/result.json").read_text())
    assert result["init"] == "inherit" and [row["epoch"] for row in result["val"]] == [1, 2]
    assert {"ladder", "augmented_over_base", "train_macs", "seconds", "test_top1"} <= result.keys()


def test_moved_together_found_json_and_runs_still_work(here, monkeypatch):
    os.rename(here, here.parent / "elsewhere")
    monkeypatch.chdir(here.parent / "elsewhere")
    done(*TRAIN, "--run", "r")
    assert json.loads(Path("r/result.json").read_text())["init"] == "inherit"


def test_the_arch_of_a_run_is_an_arch_file_like_any_other(here):
    done("train", *QUICK, "--method", "baseline", "--arch", "runs/netaug-train-1/arch.json", "--run", "r")
    result = json.loads(Path("r/result.json").read_text())
    assert result["method"] == "baseline" and result["init"] == "scratch"
    assert archfile.read("r/arch.json").plan == archfile.read("found.json").plan


def test_a_named_architecture_is_trained_at_the_resolution_of_the_data(here):
    done("train", *QUICK, "--method", "baseline", "--arch", "mobilenetv2-tiny", "--set", "epochs=1", "--run", "r")
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
    assert "--storage sqlite:///mine.db holds another run's study" in refused(*SEARCH, *storage)


@pytest.mark.parametrize("arch", ["found.json", "runs/netaug-train-1/arch.json", "mobilenetv2-tiny"])
def test_profile_shows_what_the_cost_model_says(here, arch):
    found = archfile.read(arch)
    shown = json.loads(done("profile", "--arch", arch, "--json").out)
    total = cost(found.plan)
    assert all(type(shown[key]) is int for key in ("macs", "params", "peak", "flash"))
    assert {key: shown[key] for key in total._fields} == total._asdict()
    assert sum(layer["macs"] for layer in shown["layers"]) == total.macs
    table = done("profile", "--arch", arch).out
    assert f"{total.macs:,} MACs, {total.params:,} parameters" in table and "stem" in table
    other = json.loads(done("profile", "--arch", arch, "--json", "--resolution", "192", "--classes", "7").out)
    assert (other["resolution"], other["classes"]) == (192, 7) and other["macs"] > total.macs


# --- help, and the start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_examples_that_the_command_line_understands(empty_folder, verb):
    shown = done(*filter(None, [verb]), "--help").out
    examples = re.findall(r"^\s*(?:python -m )?nasaug ((?:search|netaug-train|train|profile) .*?)\s*$", shown, re.M)
    assert len(examples) >= 2 and any(e.startswith(verb) for e in examples)
    for example in examples:
        cli.app.parse_args(shlex.split(example), exit_on_error=False, print_error=False)
    assert os.listdir() == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_option(verb):
    shown = done(verb, "--help").out
    options = re.findall(r"^│[ *]+(--[a-z][a-z-]*)((?: [A-Z]+)?(?:\.\.\.)?) +(\S*)", shown, re.M)
    assert len(options) >= 4
    assert [name for name, _, said in options if said in ("", "│")] == []


def test_help_imports_nothing_heavy():
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nasaug", "--help"], capture_output=True, text=True, check=True
    )
    imported = set(re.findall(r"\|\s+([\w.]+)$", told.stderr, re.M))
    heavy = {name for name in imported if name.split(".")[0] in "torch optuna pydantic numpy matplotlib".split()}
    assert "nasaug.cli" in imported and heavy == set()


def test_bad_input_of_a_process_is_one_line_and_code_2(empty_folder):
    ended = subprocess.run(
        [sys.executable, "-m", "nasaug", "search", "--mac-budget", "25Q"], capture_output=True, text=True
    )
    assert ended.returncode == 2 and ended.stdout == "" and os.listdir() == []
    assert re.fullmatch("nasaug: --mac-budget 25Q[^\n]*\n", ended.stderr)


def test_a_reader_that_goes_away_is_no_error(finished):
    command = [sys.executable, "-m", "nasaug", "profile", "--arch", "found.json"]
    with subprocess.Popen(command, cwd=finished, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_a_run_in_use_is_left_alone(here):
    with rundir.RunDir.resume("runs/search-1"):
        held = Child(here, "search", "--resume", "--run", "runs/search-1").end()
    assert held.code == 2 and f"in use by process {os.getpid()}" in held.err
