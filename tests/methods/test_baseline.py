"""The baseline trains its plan alone."""

from nasaug.methods import Baseline
from support.trainers import base_of, train, trainer_of


def test_the_baseline_trains_the_plan_alone_and_tracks_its_statistics():
    base = base_of(**{"s1.depth": 2})
    trainer = trainer_of(Baseline(), base)
    assert trainer.net.plan == base.plan and {len(axis.choices) for axis in trainer.space.axes} == {1}
    train(trainer)
    assert int(trainer.net.stem.norm.num_batches_tracked) == 1
    assert list(trainer.losses()) == ["base"]
