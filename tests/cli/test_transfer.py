"""`transfer`, `init` and little data by the commands: what is taken, what is told and recorded, and what is refused."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from nasaug.config.layers import load
from nasaug.data import Record
from nasaug.nets.from_torchvision import converted, plan_of
from nasaug.nets.store import load_net
from nasaug.pool import processes
from nasaug.training import job
from nasaug.training.loop import Trainer
from nasaug.training.recipe import Recipe
from support.commands import QUICK, call, done, refused, stop_in_the_second, timeless
from support.forked import FORKING

TRAINED = "runs/netaug-train-1"
AGAIN = ("--run", "again")


@pytest.fixture
def started(monkeypatch):
    """Copies of the initial nets of all trainings."""
    nets, start_net = [], job.start_net

    def noted(*args):
        net = start_net(*args)
        nets.append(net.narrow(net.plan))
        return net

    monkeypatch.setattr(job, "start_net", noted)
    return nets


def result(run="again"):
    return json.loads(Path(run, "result.json").read_text())


def same_trunk(net, other):
    """Whether two nets have the same weights but in the classifier."""
    mine = dict(net.named_parameters())
    trunk = {name: p for name, p in other.named_parameters() if not name.startswith("classifier")}
    return len(trunk) > 5 and all(torch.equal(p, mine[name]) for name, p in trunk.items())


def test_a_runs_trunk_is_trained_further_on_other_images(photos, started):
    said = done("transfer", "--from", TRAINED, *QUICK, *photos, "--method", "baseline", *AGAIN).out
    assert f"weights: those of the net in {TRAINED}/model.safetensors; classifier: fresh weights" in said
    assert same_trunk(started[-1], load_net(Path(TRAINED, "model.safetensors")))
    assert result()["init"] == "inherit trunk" and result()["classes"] == ["a", "b", "c"]
    assert load(Path("again/recipe.toml"), Recipe).init == TRAINED
    assert "had other validation images" not in said  # digits are no photos
    assert "is finished already" in done("transfer", "--resume", "--run", "again").out


def test_the_recipe_is_that_of_transfer_unless_one_is_given(photos):
    short = ("--set", "epochs=1", "--set", "calibration_images=32", "--set", "batch=16")
    done("transfer", "--from", TRAINED, *photos, *short, *AGAIN)
    recipe = load(Path("again/recipe.toml"), Recipe)
    assert (recipe.method, recipe.lr, recipe.zero_init_residual) == ("baseline", 0.05, False)


@pytest.mark.parametrize("method", ["netaug", "gradaug"])
def test_any_method_starts_from_a_run_by_init(photos, started, method):
    arch = ("--arch", f"{TRAINED}/arch.json", "--set", f"init={TRAINED}")
    done("train", *QUICK, *photos, *arch, "--method", method, *AGAIN)
    small = load_net(Path(TRAINED, "model.safetensors"))
    assert same_trunk(started[-1].narrow(small.plan.of_classes(3)), small)


def test_the_head_is_kept_for_the_same_classes(here, started):
    done("train", *QUICK, "--arch", "found.json", "--method", "baseline", "--set", f"init={TRAINED}", *AGAIN)
    net = load_net(Path(TRAINED, "model.safetensors"))
    assert result()["init"] == "inherit" and started[-1].plan == net.plan
    assert all(torch.equal(a, b) for a, b in zip(started[-1].parameters(), net.parameters(), strict=True))


def test_a_stopped_transfer_goes_on_without_the_run_it_started_from(photos, monkeypatch):
    asked = ("transfer", "--from", TRAINED, *QUICK, *photos, "--set", "trunk=frozen", "--method", "baseline")
    done(*asked, "--run", "whole")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop_in_the_second(Trainer.end_epoch))
        assert call(*asked, "--run", "half").code == 143
    shutil.rmtree(TRAINED)
    done("transfer", "--resume", "--run", "half")
    assert timeless(result("half")) == timeless(result("whole"))
    one, two = (load_net(Path(run, "model.safetensors")) for run in ("whole", "half"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_frozen_trunk_is_told_and_recorded(photos):
    frozen = ("--set", "trunk=frozen", "--method", "baseline")
    said = done("transfer", "--from", TRAINED, *QUICK, *photos, *frozen, *AGAIN).out
    before, after = (load_net(Path(run, "model.safetensors")).state_dict() for run in (TRAINED, "again"))
    assert {name for name in before if not torch.equal(before[name], after[name])} <= {"classifier.weight",
                                                                                       "classifier.bias"}  # fmt: skip
    trained = sum(after[f"classifier.{name}"].numel() for name in ("weight", "bias"))
    assert f"trunk: frozen; {trained} of {result()['params']:,} parameters are trained" in said
    assert result()["trained_params"] == trained


def random_mobilenet(monkeypatch):
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(weights=None).eval()
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: model)
    return model


def test_torchvisions_weights_start_the_same_named_network(photos, started, monkeypatch):
    model = random_mobilenet(monkeypatch)
    few = ("--set", "epochs=1", "--set", "data.train_images=16", "--resolution", "16", "--method", "baseline")
    done("transfer", "--from", "torchvision:mobilenet_v2", *QUICK, *photos[:2], *few, *AGAIN)
    assert same_trunk(started[-1], converted(model, plan_of("torchvision:mobilenet_v2")))
    assert result()["init"] == "inherit trunk" and result()["arch"] == "mobilenetv2"


# --- little data ------------------------------------------------------------------------------------------------


def test_little_data_is_told_recorded_and_checked_on_resuming(here):
    asked = ("train", *QUICK, "--arch", "found.json", "--method", "baseline", "--set", "data.train_images=0")
    said = done(*asked, "--data-fraction", "0.1", *AGAIN).out
    images = result()["train_images"]
    assert abs(images - 140) <= 5 and f"{images} training (10 % of 1,397), 40 validation, 360 test images" in said
    said = refused("train", "--resume", "--run", "again", "--data-fraction", "0.2")
    assert "data.fraction (begun with 0.1, asked 0.2)" in said
    done(*asked, "--shots", "5", "--run", "shots")
    assert result("shots")["train_images"] == 50 and load(Path("shots/recipe.toml"), Recipe).data.shots == 5
    assert result("shots")["val_key"] == result()["val_key"] and result("shots")["data_key"] != result()["data_key"]


def test_compare_draws_learning_curves(photos, monkeypatch):
    monkeypatch.setattr(processes, "subprocess", FORKING)
    asked = ("compare", *QUICK, *photos, "--arch", "found.json", "--methods", "baseline,dropout", "--jobs", "2")
    said = done(*asked, "--seeds", "1", "--data-fraction", "1,0.5", "--run", "curves").out
    summary = json.loads(Path("curves/comparison.json").read_text())
    lengths = [(arm["arm"], arm["length"]["unit"], arm["length"]["value"]) for arm in summary["arms"]]
    assert lengths == [(arm, "fraction", share) for arm in ("baseline", "dropout") for share in (0.5, 1)]
    assert "2 arms x 2 amounts of data x 1 seeds" in said and re.search(r"dropout +50 % of the images ", said)
    results = [json.loads(file.read_text()) for file in Path("curves/cells").glob("baseline*/result.json")]
    half, whole = sorted(results, key=lambda each: each["train_macs"])
    assert half["train_images"] * 2 == pytest.approx(len(Record.of_run(Path("curves")).places("train")), abs=3)
    assert half["val_key"] == whole["val_key"] and half["test_images"] == whole["test_images"]
    (crossing,) = summary["crossings"]
    assert crossing["words"] in said and "on as many images" in crossing["words"]
    page = Path("curves/comparison.html").read_text()
    assert "Learning curves: test top-1" in page and "On equal amounts of data" in page
    again = done(*asked, "--seeds", "1", "--data-fraction", "1,0.5", "--cells", "curves/cells", "--run", "more").out
    assert "4 cells, 4 there already" in again
    changed = refused("compare", "--resume", "--run", "more", "--data-fraction", "0.5")
    assert "was begun with --data-fraction 0.5,1.0, not 0.5" in changed


# --- refused ----------------------------------------------------------------------------------------------------


TRAIN = ("train", *QUICK, "--arch", "found.json", "--method", "baseline")
REFUSED = {
    ("--set", "init=nowhere"): "init = nowhere is no folder; give auto, inherit, scratch, torchvision:NAME or the fol",
    ("--set", "init=runs/search-1"): "init = runs/search-1 has no model.safetensors, so it is not the run",
    ("--set", "init=unfinished"): "init = unfinished is not finished; go on with it by its own command and --resume",
    ("--set", "init=torchvision:mobilenetv2"): "unknown torchvision network 'mobilenetv2'; did you mean mobilenet_v2",
    ("--set", "init=torchvision:mobilenet_v2"): "torchvision:mobilenet_v2 is mobilenetv2, not tiny.*--arch mobilenetv2",
    ("--set", f"init={TRAINED}", "--resolution", "16", "--arch", "mobilenetv2-tiny"): (
        "does not hold mobilenetv2-tiny: give --arch runs/netaug-train-1/arch.json"),
    ("--set", "trunk=frozen", "--from-scratch"): "trunk = frozen keeps trained weights, but this training starts from",
    ("--set", "trunk=froze"): "'train', 'norms' or 'frozen'",
    ("--set", "trunk_lr=0"): "trunk_lr = 0 must be above 0",
    ("--data-fraction", "0"): "--data-fraction 0.* must be a share.*give above 0, to 1",
    ("--data-fraction", "1.5"): "--data-fraction 1.5 must be a share",
    ("--data-fraction", "nan"): "must be a valid number",
    ("--data-fraction", "0.5", "--shots", "2"): "data.shots = 2 and data.fraction = 0.5 both say how many",
    ("--shots", "20"): r"data.shots = 20 is more than some classes of digits have .*: '.' has \d.*at most \d",
    ("--shots", "-1"): "--shots -1 must not be negative|--shots -1 must be at least 0",
    ("--shots", "1.5"): "'1.5' is not a whole number",
}  # fmt: skip


@pytest.fixture
def unfinished(here):
    shutil.copytree(TRAINED, "unfinished")
    os.remove("unfinished/result.json")


def test_what_cannot_start_is_refused(unfinished, monkeypatch):
    random_mobilenet(monkeypatch)
    for more, said in REFUSED.items():
        args = [word for word in TRAIN if "--arch" not in more or word not in ("--arch", "found.json")]
        assert re.search(said, refused(*args, *more)), more


def test_what_transfer_and_compare_refuse(here):
    assert "transfer needs --data: the data set or image folder" in refused("transfer", "--from", TRAINED)
    for line, said in {
        "transfer": "transfer needs --from: the folder of a finished run, or torchvision:NAME",
        "transfer --from nowhere --data digits": "--from nowhere is no folder; give the folder",
        "transfer --from torchvision:alexnet --data digits": "unknown torchvision network 'alexnet'.*mobilenet_v2",
        f"transfer --from {TRAINED} --data digits --set init=scratch": "--set init=… is given by another argument",
        f"transfer --from {TRAINED} --data digits --method netaug --set trunk=norms --set netaug.ladder=factors": (
            "trunk = norms keeps trained weights, but this method trains a larger net"),
        f"transfer --from {TRAINED} --data digits --method qat --set trunk_lr=0.1": "trunk_lr = 0.1 sets",
        "compare --arch found.json --data-fraction 0,1": "--data-fraction 0 must be a share above 0, to 1; give",
        "compare --arch found.json --data-fraction x": "--data-fraction x must be a share",
        "compare --arch found.json --data-fraction 0.5,0.5": "--data-fraction 0.5,0.5 names 0.5 twice",
        "compare --arch found.json --data-fraction ,": "names no amount; give one",
        "compare --arch found.json --shots 1.5": "--shots 1.5 must be a whole number of images per class",
        "compare --arch found.json --shots 900": "data.shots = 900 is more than some classes",
        "compare --arch found.json --shots 2 --data-fraction 0.5": "--data-fraction 0.5 and --shots 2 would both tell",
        "compare --arch found.json --shots 2 --lengths 1": "--lengths 1 and --shots 2 would both tell",
        "compare --arch found.json --data-fraction 0.5 --set data.shots=2": "data.shots=2: --data-fraction 0.5 says",
        "compare --arch found.json --set init=nowhere": "init = nowhere is no folder",
    }.items():  # fmt: skip
        assert re.search(said, refused(*line.split(), *QUICK)), line
