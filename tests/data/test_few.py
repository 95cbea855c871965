"""Little data: `fraction` and `shots` choose among the training images by class and seed, the fewer within the more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, load
from nasaug.data.split import first_of_each
from support.images import config, contents, numbers, write_folder


@pytest.fixture(params=["named", "in memory", "streamed"])
def made(request, tmp_path, fashion):
    if request.param == "named":
        return fashion
    folder = write_folder(tmp_path / "photos", ("cat", "dog", "eel"), each=40)
    return config(folder, memory_mb=0 if request.param == "streamed" else 100, workers=0)


def test_fewer_lie_within_more_and_validation_and_test_stay(made):
    everything = load(made)
    whole = contents(everything.train)
    held = contents(everything.val), contents(everything.finish())
    before = set(whole)
    for few in ({"fraction": 0.5}, {"fraction": 0.2}, {"shots": 3}, {"shots": 1}):
        part = load(replace(made, **few))
        images = set(contents(part.train))
        assert images < before and (contents(part.val), contents(part.finish())) == held
        sizes, all_sizes = (data.train.labels.bincount() for data in (part, everything))
        wanted = few["shots"] if "shots" in few else (few["fraction"] * all_sizes).floor()
        assert bool(((sizes - wanted) >= 0).all()) and bool(((sizes - wanted) <= 1).all())
        assert len(images) == len(part.train) or made.name == "fashion-mnist"
        if few != {"fraction": 0.2}:  # shots lie within any fraction that has as many
            before = images
        assert set(contents(load(replace(made, **few)).train)) == images
    assert set(contents(load(replace(made, split_seed=1, fraction=0.2)).train)) != set(
        contents(load(replace(made, fraction=0.2)).train)
    )


def test_the_data_line_says_of_how_many(made):
    most = len(load(made).train)
    assert f"training (10 % of {most})" in load(replace(made, fraction=0.1)).told()
    assert f"training (2 of each class, out of {most})" in load(replace(made, shots=2)).told()
    assert "(" not in load(replace(made, fraction=1.0)).told().split("classes (")[1].partition(")")[2]


def test_it_applies_to_what_train_images_leaves(fashion):
    few = replace(fashion, train_images=100)
    assert set(numbers(load(replace(few, fraction=0.5)).train)) < set(numbers(load(few).train))


def test_a_run_goes_on_with_its_images_and_a_part_of_a_job_chooses_among_the_jobs(made):
    few = replace(made, fraction=0.2)
    part = load(few)
    assert contents(load(few, begun=part.record).train) == contents(part.train)  # not a fifth of a fifth
    again = load(few, parent=load(made).record)
    assert contents(again.train) == contents(part.train) and again.record.whole_key == part.record.whole_key
    if not part.record.whole:
        assert len(part.record.places("spare")) == len(load(made).train) - len(part.train)
    with pytest.raises(BadInput, match="but the run began with"):
        load(replace(made, split_seed=7, fraction=0.2), parent=load(DataConfig("digits")).record)


@pytest.mark.parametrize(
    ("few", "told"),
    [({"fraction": 0.5, "shots": 2}, "data.shots = 2 and data.fraction = 0.5 both say how many.*leave one"),
     ({"shots": 2000}, r"data.shots = 2000 is more than some classes of .* have to train on: '.*' has \d+.*most \d+")],
)  # fmt: skip
def test_what_cannot_be_is_refused(made, few, told):
    with pytest.raises(BadInput, match=told):
        load(replace(made, **few))


def test_numbers_have_fractions_but_no_shots(tmp_path):
    folder = write_folder(tmp_path / "ages", ("all",), each=60)
    rows = "".join(f"all/{i:03}.png,{i}\n" for i in range(60))
    (folder / "labels.csv").write_text(f"file,value\n{rows}")
    made = config(folder, targets="labels.csv")
    whole, part = load(made), load(replace(made, fraction=0.5))
    assert set(part.train.labels.tolist()) < set(whole.train.labels.tolist())
    assert len(part.train) == round(len(whole.train) / 2 + 0.01)
    with pytest.raises(BadInput, match="data.shots = 2 counts images of a class, but .* has none: give data.fraction"):
        load(replace(made, shots=2))
    with pytest.raises(BadInput, match="fraction = 0.001 leaves one of the .* training images"):
        load(replace(made, fraction=0.001))


def test_every_class_keeps_an_image():
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    kept = first_of_each(labels, np.random.default_rng(0).permutation(100), fraction=0.1)
    assert labels[kept].bincount().tolist() == [9, 1, 1]
