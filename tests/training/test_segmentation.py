"""Instance segmentation from a folder to a result: every method, predicting, and what is refused."""

import json
from functools import partial

import pytest
import torch
from PIL import Image

import nasaug
from nasaug.core.errors import BadInput
from nasaug.rundirs.result import read_result
from support.segments import segmentation, written

pytest.importorskip("pycocotools", reason="the extra detect is not installed")

ARCH = "mobilenetv2-tiny"
SMALL = {"segment.width": 8, "segment.box_width": 16, "segment.mask_width": 8, "segment.detections": 4}
SHORT = {
    "task": "segment", "epochs": 1, "batch": 4, "calibration_images": 4, "data.val_images": 1, "data.train_images": 8,
    **SMALL,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("sets") / "shapes", train=12, test=3)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "netaug"
    return nasaug.train(ARCH, method="netaug", data=folder, resolution=32, set=SHORT, run=run)


def test_a_result_has_mask_map_and_says_what_the_plan_does_not_count(trained):
    result = read_result(trained.path)
    assert result.metric.name == "mask_map" and 0 <= result.test_score <= 100 and result.test_images == 3
    assert {"mask_ap50", "box_map", "box_ap50"} <= result.more.keys() and result.more["augmented_over_base"] > 1.5
    assert result.more["macs_of"] == "backbone and lateral convolutions"
    assert result.more["macs_beside"]["masks"] == 4 and result.more["macs_beside"]["total"] > 0
    head = json.loads((trained.path / "arch.json").read_text())["plan"]["head"]
    assert head["blocks"] == 4 and head["beside"]["width"] == 8
    assert 'task = "segment"' in (trained.path / "recipe.toml").read_text()
    again = nasaug.train(resume=True, run=trained.path)
    assert again.test_score == result.test_score


def test_gradaug_learns_the_masks_of_moved_images(folder, tmp_path):
    short = SHORT | {"gradaug.num_subnet": 1, "transforms.thin.crop": 0.2}
    result = nasaug.train(ARCH, method="gradaug", data=folder, resolution=32, set=short, run=tmp_path / "run")
    assert result.more["match"] == "the task's loss against the boxes and masks moved with the view"
    assert {"loss_base", "loss_thin"} <= result.history[0].keys()


def test_predict_gives_and_draws_masks(trained, folder, tmp_path, monkeypatch):
    net = nasaug.load(trained.path)
    paths = sorted((folder / "test").glob("*.png"))[:2]
    for path, objects in zip(paths, net.predict(paths), strict=True):
        width, height = Image.open(path).size
        for each in objects:
            assert each.label in segmentation().CLASSES and 0 < each.score < 1
            assert each.mask.shape == (height, width) and each.mask.dtype == torch.bool
    from nasaug.deployment.predict import Segmented
    from nasaug.deployment.predictions import _boxed

    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10:30, 12:20] = True
    sure = Segmented("disc", 0.9, (12.0, 10.0, 20.0, 30.0), mask)
    monkeypatch.setattr(type(net), "predict", lambda self, images: [[sure], []])
    first, _ = nasaug.predict(net, paths, out=tmp_path / "sheet.png")
    plain = first.to_json()["objects"][0]
    assert plain["mask"]["size"] == [64, 64] and plain["box"] == sure.box
    from pycocotools import mask as coco

    assert (coco.decode(plain["mask"]) == mask.numpy()).all() and (tmp_path / "sheet.png").stat().st_size > 0
    drawn = _boxed(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy(), [sure]).sum(2) > 0
    assert drawn[14:28, 14:18].all() and not drawn[40:].any()


def test_what_a_two_stage_net_cannot_do_is_refused(trained, folder, tmp_path):
    with pytest.raises(BadInput, match="holds a two-stage net, whose proposals no format of export has; use it"):
        nasaug.export(trained.path, format="onnx", out=tmp_path / "out")
    prune = partial(nasaug.prune, trained.path, target_macs="0.5M")
    for job in (partial(nasaug.search, mac_budget="1M"), prune):
        with pytest.raises(BadInput, match="task = segment is for train, netaug-train and compare alone"):
            job(data=folder, set={"task": "segment"}, run=tmp_path / "run")
    refused = {"method": "qat", "teacher.source": str(trained.path)}
    for key, value in refused.items():
        short = SHORT | ({key: value} if key != "method" else {"qat.on": True})
        with pytest.raises(BadInput, match="two nets' proposals do not match|trains for int8 models"):
            nasaug.train(ARCH, data=folder, resolution=32, set=short, run=tmp_path / "run")
    with pytest.raises(BadInput, match="segment.width = 12: must be a multiple of 8"):
        nasaug.train(ARCH, data=folder, set=SHORT | {"segment.width": 12}, run=tmp_path / "run")
    with pytest.raises(BadInput, match="task = segment learns from boxes, but digits has classes"):
        nasaug.train(ARCH, data="digits", set=SHORT, run=tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_the_folded_net_gives_the_maps_of_the_lateral_convolutions(trained):
    net = nasaug.load(trained.path)
    x = torch.randn(2, 3, 32, 32)
    maps = torch.cat([each.permute(0, 2, 3, 1).flatten(1, 2) for each in net(x).levels], 1)
    assert torch.allclose(nasaug.fold(net)(x), maps, atol=1e-4)
