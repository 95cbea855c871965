"""Detection from a folder to a result: every method, resuming, exporting, predicting, and what is refused."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import nasaug
from nasaug.core.boxes import CLASS
from nasaug.core.errors import BadInput
from nasaug.rundirs.result import read_result
from nasaug.tasks import precision
from support.canvases import detection, drawn

pytest.importorskip("pycocotools", reason="the extra detect is not installed")

ARCH = "mobilenetv2-tiny"
NAMES = ["potted plant", "ring", "cross"]
SHORT = {"epochs": 1, "batch": 8, "calibration_images": 16, "data.val_images": 4}


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "voc"
    detection().write_voc(folder, {"train": drawn(40, sides=(40, 56)), "test": drawn(6, 9, sides=(40, 56))}, NAMES)
    return folder


@pytest.fixture(scope="module")
def trained(voc, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "baseline"
    return nasaug.train(ARCH, method="baseline", data=voc, resolution=32, set=SHORT, run=run)


def test_a_result_has_ap50_and_further_figures(trained, voc):
    result = read_result(trained.path)
    assert result.metric.name == "ap50" and 0 <= result.test_score <= 100 and result.test_images == 6
    assert {"ap50_11_points", "coco_map"} <= result.more.keys() and result.more["task"] == "detect"
    assert result.judged() is None and "test ap-50" in str(result)
    assert json.loads((trained.path / "arch.json").read_text())["plan"]["head"] == {"blocks": 15, "pooled": False}


def test_predict_finds_boxes_in_the_pixels_of_each_image(trained, voc):
    model = nasaug.load(trained.path)
    paths = sorted((voc / "JPEGImages").glob("test*"))[:3]
    model.facts["classes"] = NAMES
    found = model.predict(paths)
    assert len(found) == 3
    for path, objects in zip(paths, found, strict=True):
        width, height = Image.open(path).size
        for label, score, (x1, y1, x2, y2) in objects:
            assert label in NAMES and 0 < score < 1 and 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def test_predict_draws_what_it_is_sure_of(trained, voc, tmp_path, monkeypatch):
    from nasaug.deployment import predictions
    from nasaug.deployment.predict import Found

    paths = sorted((voc / "JPEGImages").glob("test*"))[:2]
    sure, vague = Found("ring", 0.9, (4.0, 5.0, 30.0, 31.0)), Found("cross", 0.1, (1.0, 1.0, 9.0, 9.0))
    net = nasaug.load(trained.path)
    monkeypatch.setattr(type(net), "predict", lambda self, images: [[sure, vague], []])
    first, second = nasaug.predict(net, paths, out=tmp_path / "sheet.png")
    assert first.objects == (sure,) and first.lines == ("1 ring",) and second.lines == ("nothing found",)
    assert first.to_json()["objects"] == [{"label": "ring", "score": 0.9, "box": sure.box}]
    boxed = predictions._boxed(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy(), [sure])
    assert (boxed[5:31, 4] == [255, 0, 0]).all() and (tmp_path / "sheet.png").stat().st_size > 0


def test_the_report_draws_true_and_found_boxes_on_validation_images(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    from nasaug.comparison import report

    shown = load_file(trained.path / "shown.safetensors")
    assert shown["images"].dtype == torch.uint8 and 0 < len(shown["images"]) <= 4  # all validation images with objects
    assert (shown["there"][..., CLASS] >= 0).any(1).all() and len(shown["there"]) == len(shown["found"])
    run = tmp_path / "run"
    run.mkdir()
    for name in ("result.json", "env.json", "recipe.toml"):
        (run / name).write_bytes((trained.path / name).read_bytes())
    for score, red in ((0.9, True), (0.1, False)):
        found = torch.tensor([[0.1, 0.1, 0.9, 0.9, 1, score]]).repeat(len(shown["images"]), 1, 1)
        tensors = shown | {"images": shown["images"] * 0, "found": found}
        save_file(tensors, run / "shown.safetensors", {"nasaug": "{}"})
        report.report([run], tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        data = page.split('src="data:image/png;base64,')[1].split('"')[0]
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        has = [bool((drawn == colour).all(2).any()) for colour in ([255, 0, 0], [0, 255, 0])]
        assert has == [red, True] and "Detections on validation images" in page
    (run / "shown.safetensors").unlink()  # a run of before
    report.report([run], tmp_path / "page.html")
    assert "Detections on validation images" not in (tmp_path / "page.html").read_text()


def test_a_detector_is_written_in_c_and_trained_in_int8(trained, voc, tmp_path):
    exported = nasaug.export(trained.path, format=["int8-onnx", "c"], out=tmp_path / "out")
    assert exported["c"].difference <= 1 and "#define MODEL_CLASSES {" in (tmp_path / "out/model.h").read_text()
    short = {key: value for key, value in SHORT.items() if key != "epochs"} | {"qat.epochs": 1}
    result = nasaug.train(trained.path / "arch.json", method="qat", data=voc, set=short, run=tmp_path / "run")
    first, last = (row["val_ap50"] for row in result.history)
    assert result.val_score == max(first, last) and result.init == "inherit"
    assert nasaug.export(result.path, format="int8-onnx", out=tmp_path / "q")["int8-onnx"].score == result.test_score


def test_gradaug_says_what_its_thin_nets_are_matched_to(voc, tmp_path):
    short = SHORT | {"gradaug.num_subnet": 1, "transforms.thin.crop": 0.2}
    result = nasaug.train(ARCH, method="gradaug", data=voc, resolution=32, set=short, run=tmp_path / "run")
    assert result.more["match"] == "the task's loss against the boxes moved with the view"
    assert {"loss_base", "loss_thin"} <= result.history[0].keys()


def test_netaug_widens_what_the_head_reads_and_resumes(voc, tmp_path, trained):
    result = nasaug.train(ARCH, method="netaug", data=voc, resolution=32, set=SHORT, run=tmp_path / "run")
    assert result.more["augmented_over_base"] > 1.5 and result.macs == trained.macs
    again = nasaug.train(resume=True, run=tmp_path / "run")
    assert again.test_score == result.test_score


def test_views_that_boxes_cannot_follow_are_refused(voc, tmp_path):
    for key, value in (("policy", "randaugment"), ("mixup", 0.2), ("cutmix", 1.0)):
        with pytest.raises(BadInput, match=f"views.train.{key} = .* moves or mixes pixels without their boxes"):
            nasaug.train(ARCH, data=voc, resolution=32, set=SHORT | {f"views.train.{key}": value}, run=tmp_path / "r")
    with pytest.raises(BadInput, match="views.train.iou_crop = 0.5 is for boxes, but digits has classes"):
        nasaug.train(ARCH, data="digits", set=SHORT | {"views.train.iou_crop": 0.5}, run=tmp_path / "r")
    with pytest.raises(BadInput, match="views.train.scale_jitter = 2 is for boxes, but digits has classes"):
        nasaug.train(ARCH, data="digits", set=SHORT | {"views.train.scale_jitter": 2.0}, run=tmp_path / "r")
    with pytest.raises(BadInput, match="task = detect learns from boxes, but digits has classes; choices: classify"):
        nasaug.train(ARCH, data="digits", set=SHORT | {"task": "detect"}, run=tmp_path / "r")


def test_exported_files_give_the_points_of_the_net(trained):
    pytest.importorskip("onnxruntime")
    exported = nasaug.export(trained.path, format=["onnx", "int8-onnx"])
    assert exported["onnx"].difference < 1e-4 and exported["onnx"].agreement is None
    assert exported["onnx"].score == pytest.approx(trained.test_score, abs=1e-6)
    card = (exported.path / "model-card.md").read_text()
    assert "`points`: [n, points, 8]: the pixels of three maps" in card
    assert "The whole image, resized to that square" in card


def test_what_needs_pycocotools_says_so_before_it_works(trained, voc, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    missing = "detection needs pycocotools, which is not installed; run: pip install"
    with pytest.raises(BadInput, match=missing):
        nasaug.train(ARCH, data=voc, resolution=32, set=SHORT, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    said = []
    exported = nasaug.export(trained.path, format="onnx", out=tmp_path / "out", on_event=said.append)
    assert exported["onnx"].score is None  # it can do without
    assert any(missing in str(event) and "images of noise" in str(event) for event in said)


def test_images_and_boxes_of_a_view_move_together():
    from nasaug.augment import View
    from nasaug.augment.boxes import moved
    from nasaug.augment.transform import Transform, transform_both

    images, boxes = torch.zeros(24, 3, 48, 48, dtype=torch.uint8), torch.zeros(24, 2, 6)
    boxes[..., CLASS] = -1
    rng = torch.Generator().manual_seed(1)
    for i in range(24):
        x, y, w, h = (torch.randint(6, 20, (4,), generator=rng) + torch.tensor([0, 0, 4, 4])).tolist()
        images[i, :, y : y + h, x : x + w] = 255
        boxes[i, 0] = torch.tensor([x / 48, y / 48, (x + w) / 48, (y + h) / 48, 3, 1])

    def follows(seen, found, off):
        for image, box in zip(seen[:, 0].float(), found[:, 0], strict=True):
            on = (image > 190).nonzero()
            if box[CLASS] >= 0:
                edges = [*on.min(0).values.flip(0), *(on.max(0).values + 1).flip(0)]
                assert (box[:4] * 48 - torch.tensor(edges)).abs().max() < off and box[4:].tolist() == [3, 1]
        assert (found[:, 0, CLASS] >= 0).sum() > 16 and (found[:, 1, CLASS] == -1).all()

    plain = {"flip": False, "crop": 0.0}
    for view in (View(), View(crop=0.4), View(zoom_out=3.0, **plain), View(iou_crop=1.0, **plain),
                 View(scale_jitter=2.0, **plain)):  # fmt: skip
        seen, found = moved(view, images, boxes, torch.Generator().manual_seed(2), True)
        follows(seen, found, 1.6)
        same = moved(view, images, boxes, torch.Generator().manual_seed(2), True)
        assert torch.equal(same[0], seen) and torch.equal(same[1], found) and not torch.equal(seen, images)
    for how in (Transform(crop=0.3), Transform(rotate=15)):
        follows(*transform_both(how, images.float(), boxes, torch.Generator().manual_seed(3)), 3.5)
