"""The Python API: what `import nasaug` offers, without the command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nasaug
from nasaug.core import tensorfile
from nasaug.core.progress import Advance, Line
from nasaug.data import Record

PAGE = Path(__file__).resolve().parent.parent / "docs" / "howto" / "python.md"


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """A folder of photos in which the page's example ran, on less compute; its names, and what it printed."""
    folder = tmp_path_factory.mktemp("worked")
    for i in range(90):
        place = folder / "photos" / "abc"[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 12), 5 + 40 * (i % 3)).save(place / f"{i}.png")
    Image.effect_noise((30, 20), 5).save(folder / "mine.jpg")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        names, printed = {"print": lambda *told: printed.append(" ".join(map(str, told)))}, []
        exec(example().replace("1e12", "3e7").replace('"200k"', '"200k", trials=3'), names)
    return folder, names, printed


def example():
    (code,) = re.findall(r"```python\n(import nasaug\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return code


def test_the_pages_example_is_short_and_does_what_it_says(worked):
    folder, names, printed = worked
    assert len(example().splitlines()) <= 25
    assert nasaug.cost(names["found"]).macs <= 200_000
    assert (folder / "found.json").is_file() and names["result"].path.is_dir()
    assert re.fullmatch(r"mine\.jpg: [abc] \(\d+ %\)", printed[-1])
    assert any("supernet" in line for line in printed) and any(re.match(r"train \d+/", line) for line in printed)


def test_a_loaded_net_is_a_module_that_predicts_what_it_was_trained_to_tell_apart(worked, monkeypatch):
    folder, names, _ = worked
    monkeypatch.chdir(folder)
    model = nasaug.load(names["result"].path)
    assert isinstance(model, torch.nn.Module) and model.classes == ["a", "b", "c"]
    paths = [folder / "photos/a/0.png", folder / "mine.jpg"]
    by_path, by_image = model.predict(paths), model.predict([Image.open(path) for path in paths])
    assert [p.label for p in by_path] == [p.label for p in by_image]
    for found in by_path:
        assert found.label == model.classes[int(found.probabilities.argmax())]
        assert found.confidence == pytest.approx(float(found.probabilities.max()))
        assert float(found.probabilities.sum()) == pytest.approx(1.0)
    pixels = torch.from_numpy(np.array(Image.open(paths[0]).convert("RGB"))).permute(2, 0, 1)[None]
    torch.testing.assert_close(model.predict(pixels)[0].probabilities, by_path[0].probabilities)


def test_predictions_are_those_that_the_test_images_were_judged_by(worked):
    """Which of them are right, as the run recorded it, image by image."""
    folder, names, _ = worked
    run = names["result"].path
    record, model = Record.of_run(run), nasaug.load(run)
    places = record.places("test").tolist()
    files = [folder / "photos" / os.fsdecode(record.files[i]) for i in places]
    labels = [path.parent.name for path in files]
    right = [p.label == label for p, label in zip(model.predict(files), labels, strict=True)]
    assert right == tensorfile.read(run / "test.safetensors")[0]["correct"].bool().tolist()


@pytest.mark.parametrize(
    ("images", "told"),
    [("mine.jpg", "a list of images"), (["gone.jpg"], "gone.jpg"), (["README"], "no image"),
     (torch.zeros(1, 3, 8, 8), "must be uint8"), (torch.zeros(3, 8, 8, dtype=torch.uint8), "must be uint8")],
)  # fmt: skip
def test_what_is_no_image_is_refused(worked, monkeypatch, images, told):
    folder, names, _ = worked
    monkeypatch.chdir(folder)
    Path("README").write_text("words")
    with pytest.raises(nasaug.BadInput, match=told):
        nasaug.load(names["result"].path).predict(images)


def test_functions_neither_print_nor_exit(worked, monkeypatch, capfd):
    folder, names, _ = worked
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    heard = []
    again = nasaug.train(run=names["result"].path, resume=True, on_event=heard.append)
    assert again == names["result"] and [type(event) for event in heard] == [Line]
    with pytest.raises(nasaug.BadInput):
        nasaug.train("no-such-net", data="digits")
    with pytest.raises(nasaug.BadInput):
        nasaug.search(mac_budget="1 apple")
    assert capfd.readouterr() == ("", "")
    assert not any(isinstance(event, Advance) for event in heard)


def test_every_public_name_is_there_and_each_function_works_after_all_modules_were_imported():
    code = """
import importlib, pkgutil, nasaug
before = {name: getattr(nasaug, name) for name in nasaug.__all__}
for found in pkgutil.walk_packages(nasaug.__path__, "nasaug."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
assert before == {name: getattr(nasaug, name) for name in nasaug.__all__}
print(nasaug.cost("mobilenetv2-tiny").macs, nasaug.cost("mobilenetv2-tiny", resolution=32, classes=10).macs)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "23499152 1095088\n", done.stderr
