"""Every shipped arm, alone and with each method, takes a training step."""

import tomllib
from pathlib import Path

import pytest

from nasaug.arch import archfile
from nasaug.cli.options import Common
from nasaug.config.layers import load, split_arm
from nasaug.training.device import open_runtime
from nasaug.training.job import job_for, load_data, make_scorer, make_trainer
from nasaug.training.recipe import Recipe


def test_a_plus_in_a_number_or_in_a_files_name_joins_no_arms(empty_folder):
    assert split_arm("netaug:lr=1e+3+mixup") == ["netaug:lr=1e+3", "mixup"]
    Path("a+b.toml").write_text("lr = 0.01")
    recipe = Common(recipe="small").settings({}, arm="a+b.toml")
    assert (recipe.lr, recipe.method) == (0.01, "baseline")
    Path("runs/a+mixup").mkdir(parents=True)
    kept = ["netaug:lr=1e+3", "distill:source=runs/a+mixup,temperature=2", "a+b.toml", "mixup"]
    assert split_arm("+".join(kept)) == kept
    assert split_arm("distill:source=runs/a+ema") == ["distill:source=runs/a", "ema"]
    Path("netaug+mixup").mkdir()  # a run's folder, say
    assert split_arm("netaug+mixup") == ["netaug", "mixup"]


SHIPPED = {path.stem: tomllib.loads(path.read_text()) for path in Path(__file__).parents[2].glob("recipes/arms/*.toml")}
METHODS = ("baseline", "netaug", "gradaug")
WITH_METHODS = [
    f"{method}+{arm}" for arm, table in sorted(SHIPPED.items()) for method in METHODS
    if arm not in METHODS and table.get("method", method) == method
]  # fmt: skip


@pytest.mark.parametrize("arm", [*METHODS, *WITH_METHODS])
def test_every_shipped_arm_takes_a_step(finished, monkeypatch, arm):
    """On what a search found, whose supernet is `distill`'s teacher."""
    monkeypatch.chdir(finished)
    recipe = load("quick.toml", Recipe, differences=(arm,))
    assert len(SHIPPED) > 15 and recipe.method == arm.partition("+")[0]
    found, runtime, data = archfile.read("found.json"), open_runtime("cpu"), load_data(recipe, 8)
    scorer = make_scorer(recipe, data, runtime)
    job = job_for(found, recipe, runtime, len(data.train))
    trainer = make_trainer(job, data, runtime, scorer)
    before = {name: weight.clone() for name, weight in trainer.net.state_dict().items()}
    images, labels, _ = next(iter(data.train.batches(16, seed=0, epoch=0)))
    trainer.train_step(images, labels)
    assert all(loss > 0 for loss in trainer.losses().values())
    assert any(not before[name].equal(weight) for name, weight in trainer.net.state_dict().items())
