"""Damaged and hostile input for every reader: valid files, and the ways in which they are altered.

`altered` draws all its choices from a `random.Random` or one of hypothesis's or Atheris's, so one function serves all
three. An input passes if the reader gives a result or a one-line error (BadInput, RunFault); anything else is a find.
"""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tomli_w
import torch
from PIL import Image

from nasaug.arch import archfile, latency, spacefile
from nasaug.arch.blocks import BLOCKS, lower
from nasaug.arch.cost import Budget, block_cost, cost, cost_of
from nasaug.arch.plan import plan
from nasaug.arch.space import Space
from nasaug.config import layers
from nasaug.config.schedule import Curve, Schedule
from nasaug.core import files, tensorfile
from nasaug.core.errors import BadInput, RunFault
from nasaug.data import boxes, builtin, numbers
from nasaug.data.picture import Unreadable, decoded, header
from nasaug.data.record import Record
from nasaug.deployment import layer_rows
from nasaug.nets.net import Net
from nasaug.nets.store import load_net, save_net
from nasaug.rundirs import overview
from nasaug.rundirs.folder import RunDir
from nasaug.rundirs.job import verb_of
from nasaug.rundirs.result import read_result
from nasaug.training import checkpoint
from nasaug.training.recipe import Recipe
from support.reports import summary_of
from support.searches import SPACE
from support.tables import content_of

LONGEST = 5_000  # characters of an error's line


@dataclass(frozen=True)
class Reader:
    """What reads one kind of input. `name` is that of the file below the scratch folder (empty: a text, no file),
    `valid` gives contents that it accepts, `read` reads what lies in the folder, or the text. `share` is how much of
    many inputs it takes, `kind` how they are altered: as json, toml, or bytes."""

    name: str
    kind: str
    valid: Callable[[], list[bytes]]
    read: Callable[[Any], object]
    share: float = 1.0


# --- what the readers read ------------------------------------------------------------------------------------

PLAN = plan(SPACE, SPACE.smallest, 10)
CHOICES = {"choices": SPACE.choices(SPACE.smallest), "space": SPACE.to_dict()}


def _json(*contents: dict) -> list[bytes]:
    return [json.dumps(content).encode() for content in contents]


def _costed(space: Space) -> None:
    for arch in (space.smallest, space.largest):
        cost_of(space, arch, 10)


def _space(folder: Path) -> None:
    _costed(spacefile.load(str(folder / "space.toml"), BLOCKS))


def _spaces() -> list[bytes]:
    shipped = [path.read_bytes() for path in files.bundled("search_spaces").glob("*small.toml")]
    return [tomli_w.dumps(SPACE.to_dict()).encode(), *shipped]


def _arch(folder: Path) -> None:
    found = archfile.read(str(folder / "arch.json"))
    cost(found.plan)


def _archs() -> list[bytes]:
    found = {"format": archfile.FORMAT, "name": "x", "plan": PLAN.to_dict(), "cost": cost(PLAN).known, "pruned": 0.25}
    return _json(found, found | CHOICES | {"weights": "model.safetensors", "data": "digits"})


def _recipes() -> list[bytes]:
    contents = (path.read_bytes() for path in files.bundled("recipes").rglob("*.toml"))
    return [content for content in contents if b"base =" not in content]


def _budget(text: str) -> None:
    for kind in ("macs", "params", "peak", "flash", "latency"):
        budget = Budget.parse(**{kind: text})
        f"{budget} {budget.excess(cost(PLAN)._replace(latency=1.0))}"


def _schedule(text: str) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    Schedule.parse(value).sampled()


CURVE = {
    "format": "nasaug-curve/1", "intercept": -20.0, "slope": 4.0, "low": 0.0, "high": 9.0, "data": "x", "data_key": "1f"
}


def _set(text: str) -> None:
    layers.load(None, Recipe, [text])


def _table(folder: Path) -> None:
    table = latency.read(folder / "table.json")
    table.predict(PLAN)


CSV = (
    b"layer,kernel,stride,activation,inputs,outputs,height,width,middle,milliseconds\n"
    b"conv,3,2,relu6,3,8,14,14,0,0.1\ndepthwise,3,1,relu6,48,48,16,16,0,0.021\nse,1,1,,48,48,1,1,16,1e-3\n"
)
LABELS = b"file,value,split\na.png,1.5,train\nb.png,7,test\nc.png,-2e3,val\n"


def _coco(folder: Path) -> None:
    boxes.find(str(folder / "coco"), masks=False)


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 3], "iscrowd": 0, "area": 12.0},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0.5, 0, 2, 2.5], "segmentation": [[0, 0, 4, 0, 4, 4]]},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "animal"}],
}  # fmt: skip
SEEN = [[[1, 1, 5, 1, 5, 4]], *({"size": [6, 8], "counts": runs} for runs in ([10, 6, 32], ":6P1"))]
MASKED = COCO | {
    "annotations": [
        {"id": i, "image_id": 1 + i % 2, "category_id": 3, "bbox": [1, 1, 4, 3], "segmentation": seen}
        for i, seen in enumerate(SEEN)
    ]
}


def _masks(folder: Path) -> None:
    found = boxes.find(str(folder / "coco"), masks=True)
    if found is not None and found.masks is not None:
        found.masks.at(found.masks.numbers, 8)


VOC = b"""<annotation><folder>VOC</folder><filename>a.png</filename><size><width>8</width><height>6</height>
<depth>3</depth></size><object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>
<xmax>5</xmax><ymax>4</ymax></bndbox></object><object><name>cat</name><bndbox><xmin>0.5</xmin><ymin>0</ymin>
<xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>"""
ENTITIES = b"""<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d SYSTEM "file:///dev/zero">]><annotation><filename>&c;&d;</filename></annotation>"""


def _tensors(state: dict) -> bytes:
    from safetensors.torch import save

    return save({"x": torch.arange(6).float().reshape(2, 3), "best.x": torch.zeros(2)}, {"nasaug": json.dumps(state)})


STATE = {
    "steps": 6, "method": "NetAug", "step": 3, "macs": 1.0, "seconds": 0.5, "history": [], "best_top1": None,
    "sums": {"base": 1.0},
}  # fmt: skip


def _checkpoint(folder: Path) -> None:
    own = {"x": torch.zeros(2, 3)}, dict(STATE)
    checkpoint.read(folder / "checkpoint.safetensors", own)


def _models() -> list[bytes]:
    path = Path(_scratch(), "model.safetensors")
    save_net(path, Net(PLAN, 0), mean=[0.5] * 3, std=[0.5] * 3, classes=list("abcdefghij"))
    return [path.read_bytes()]


def _records() -> list[bytes]:
    names = np.array([b"a/1.png", b"b/2.png"])
    record = Record("photos", ("a", "b"), {}, names, torch.tensor([0, 1]), torch.tensor([0, 2], dtype=torch.uint8),
                    torch.tensor([10, 11]), torch.ones(2, 16, dtype=torch.uint8))  # fmt: skip
    record.save(_scratch())
    return [(_scratch() / "data.safetensors").read_bytes()]


def _record(folder: Path) -> None:
    record = Record.of_run(folder)
    assert record is not None
    f"{record.key('train')} {record.whole_key} {record.seen_again()}"


RESULT = {
    "format": "nasaug-result/1", "arm": "netaug", "method": "netaug", "arch": "x", "data": "digits", "data_key": "1f",
    "seed": 0, "init": "scratch", "macs": 10, "params": 5, "peak": 7, "flash": 9, "val_top1": 50.0,
    "train_top1": 60.0, "val": [{"epoch": 1, "val_top1": 50.0}], "test_top1": 49.0, "test_images": 10, "epochs": 2.0,
    "train_macs": 1e6, "seconds": 1.5, "peak_memory": 1000, "device": "CPU",
}  # fmt: skip

REGRESSION = {
    "metric": {"name": "mae", "unit": "", "higher_is_better": False}, "val_mae": 1.5, "test_mae": 2.0, "train_mae": 1.0
}


def _result(folder: Path) -> None:
    result = read_result(folder)
    f"{result} {result.length()} {result.to_json()}"


def _judged(folder: Path) -> None:
    (folder / "result.json").write_text(json.dumps(RESULT | {"test_top1": 50.0}))
    read_result(folder).judged()


def _judgements() -> list[bytes]:
    from safetensors.torch import save

    right = {"correct": torch.tensor([1, 0] * 5, dtype=torch.uint8)}
    return [save(right), save(right | {"rows": torch.zeros(2)})]


def _comparisons() -> list[bytes]:
    with tempfile.TemporaryDirectory() as cells:
        return _json(summary_of(Path(cells), (0, 1), baseline=70.0, netaug=72.0) | {"data": "digits"})


def _idx(folder: Path) -> None:
    builtin._idx(folder, "train-images-idx3-ubyte")


def _image(folder: Path) -> None:
    try:
        header(bytes(folder / "image"))
        decoded(np.fromfile(folder / "image", dtype=np.uint8), "white")
    except Unreadable as error:
        raise BadInput(str(error)) from error


def _images() -> list[bytes]:
    found = []
    for kind, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("GIF", "P"), ("BMP", "L"), ("TIFF", "RGB"), ("WEBP", "RGBA")):
        path = _scratch() / "image"
        Image.new(mode, (9, 7)).save(path, kind)
        found.append(path.read_bytes())
    return found


def _onnx(folder: Path) -> None:
    from nasaug.int8 import onnxfile

    onnxfile.facts_of(onnxfile.read(folder / "model.onnx"))


def _onnxes() -> list[bytes]:
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "x", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"task": '"classify"', "resolution": "8", "classes": '["a", "b"]'})
    return [model.SerializeToString()]


_folder: list[Path] = []


def _scratch() -> Path:
    return _folder[0]


def lay_out(folder: Path) -> None:
    """What the readers need beside their input: images. Call this before anything below."""
    _folder[:] = [folder]
    for place in ("coco", "voc", "labels"):
        (folder / place).mkdir(exist_ok=True)
        for name in ("a.png", "b.png", "c.png"):
            Image.new("RGB", (8, 6)).save(folder / place / name)
    (folder / "voc" / "Annotations").mkdir(exist_ok=True)
    (folder / "compared").mkdir(exist_ok=True)
    (folder / "compared" / "job.json").write_bytes(*_json({"format": "nasaug-job/1", "verb": "compare"}))
    (folder / "compared" / "result.json").write_bytes(*_json({"format": "nasaug-result/1"}))


READERS = {
    "budget": Reader("", "bytes", lambda: [b"25M", b"320KB", b"1.5e6", b"3ms", b".5 KiB"], _budget, 12),
    "schedule": Reader("", "bytes", lambda: [b"9:0", b"4", *_json({"linear": [9, 0]}, {"steps": [[0, 1], [0.5, 2]]})],  # type: ignore[arg-type]
                       _schedule, 12),
    "curve": Reader("curve.json", "json", lambda: _json(CURVE),
                    lambda f: Curve.read(str(f / "curve.json")).of_net(1e6), 2),
    "override": Reader("", "bytes", lambda: [b"epochs=3", b'netaug.ladder="factors"', b"views.train.magnitude=9:0",
                                             b"search.objectives=[\"accuracy\",\"macs\"]"], _set, 1),
    "space": Reader("space.toml", "toml", _spaces, _space, 1),
    "recipe": Reader("recipe.toml", "toml", _recipes, lambda f: layers.load(f / "recipe.toml", Recipe), 1),
    "arch": Reader("arch.json", "json", _archs, _arch, 3),
    "latency table": Reader("table.json", "json", lambda: _json(content_of(SPACE)), _table, 1),
    "latency rows": Reader("rows.csv", "bytes", lambda: [CSV], lambda f: layer_rows.read(f / "rows.csv"), 8),
    "labels": Reader("labels/labels.csv", "bytes", lambda: [LABELS], lambda f: numbers.listing(str(f / "labels")), 4),
    "coco": Reader("coco/instances.json", "json", lambda: _json(COCO), _coco, 2),
    "masks": Reader("coco/instances.json", "json", lambda: _json(MASKED), _masks, 2),
    "voc": Reader("voc/Annotations/a.xml", "bytes", lambda: [VOC, ENTITIES], lambda f: boxes.find(str(f / "voc")), 2),
    "tensor file": Reader("x.safetensors", "bytes", lambda: [_tensors(STATE)],
                          lambda f: tensorfile.read(f / "x.safetensors"), 4),
    "checkpoint": Reader("checkpoint.safetensors", "bytes", lambda: [_tensors(STATE)], _checkpoint, 4),
    "model": Reader("model.safetensors", "bytes", _models, lambda f: load_net(f / "model.safetensors"), 0.5),
    "record": Reader("data.safetensors", "bytes", _records, _record, 2),
    "result": Reader("result.json", "json", lambda: _json(RESULT, RESULT | REGRESSION), _result, 3),
    "comparison": Reader("compared/comparison.json", "json", _comparisons, lambda f: overview.below(f / "compared"), 1),
    "test record": Reader("test.safetensors", "bytes", _judgements, _judged, 2),
    "environment": Reader("env.json", "json", lambda: _json({"format": "nasaug-env/1", "command": "x", "kernels": {}}),
                          lambda f: RunDir(f).environment(), 3),
    "job": Reader("job.json", "json", lambda: _json({"format": "nasaug-job/1", "verb": "train", "where": {}}),
                  verb_of, 3),
    "log": Reader("log.jsonl", "bytes", lambda: [b'{"time": 1.0, "event": "epoch", "step": 3}\n' * 2],
                  lambda f: RunDir(f).rewind("train", step=1), 0.3),
    "idx": Reader("train-images-idx3-ubyte", "bytes", lambda: [struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4) + bytes(24)],
                  _idx, 8),
    "image": Reader("image", "bytes", _images, _image, 4),
    "onnx": Reader("model.onnx", "bytes", _onnxes, _onnx, 2),
}  # fmt: skip

# --- how they are altered -------------------------------------------------------------------------------------

VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 63, 10**400, -(10**30), 0.5, -0.0, 1e-320, 1e308,
    1e400, float("nan"), float("-inf"), "", " ", "\0", "x" * 3000, "\ud800", "é\n\u202e", "../../../dev/zero",
    "/dev/zero", "<script>alert(1)</script>", "{{7*7}}", "%s%n", "conv", "netaug", "0x10", "1_000", "1e5", [], {}, [[]],
    [1, 2], [None], {"": {}}, {"block": "conv"}, {"__class__": "x"},
]  # fmt: skip
TOKENS = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r\n", b"[", b"]", b"[[", b"{", b"}", b'"', b"'''", b",", b":",
    b"=", b"-", b".", b"e400", b"nan", b"inf", b"1" * 400, b"99999999999", b"[" * 3000, b'{"a":' * 3000, b"true",
    b"null", b"../", b"<!DOCTYPE a [<!ENTITY b 'b'>]>", b"&b;", b"<a>" * 500, b"]]>", b"\x7f\xff\xff\xff", b"\xff" * 8,
    b"\x80", b"\\ud800", "é".encode(), b"#", b"a" * 5000, b"cos__system\n(S'true'\ntR.", b"KB", b"ms", b"M",
]  # fmt: skip


def altered(rng: Random, valid: list[bytes], kind: str) -> bytes:
    """One of the valid contents after one to four alterations: of its values if it is JSON or TOML, or of its bytes."""
    content = rng.choice(valid)
    if kind != "bytes" and rng.random() < 0.75:
        tree = json.loads(content) if kind == "json" else _toml(content)
        for _ in range(rng.randint(1, 3)):
            tree = _alter_tree(rng, tree)
        try:
            return (json.dumps(tree) if kind == "json" else tomli_w.dumps(tree)).encode(errors="surrogatepass")
        except (TypeError, AttributeError, ValueError):  # no TOML: a null, or no table
            content = rng.choice(valid)
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        _alter_bytes(rng, data)
    return bytes(data)


def _toml(content: bytes) -> dict:
    import tomllib

    return tomllib.loads(content.decode())


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def _alter_tree(rng: Random, tree: Any) -> Any:
    places = list(_places(tree))
    if not places or rng.random() < 0.02:
        return _value(rng)
    at, key = rng.choice(places)
    way = rng.randrange(6)
    if way == 0:
        del at[key]
    elif way == 1:
        other, name = rng.choice(places)
        try:
            at[key] = json.loads(json.dumps(other[name]))  # a copy: nothing holds itself
        except (IndexError, KeyError):  # it was removed above
            at[key] = None
    elif way == 2 and isinstance(at, dict):
        at[rng.choice(["", "format", "name", "x" * 200, "é", key + "s" if isinstance(key, str) else "y"])] = at[key]
    elif way == 3 and isinstance(at, list):
        at.extend([at[key]] * rng.choice([1, 3, 40]))
    elif way == 4 and isinstance(at[key], (int, float)) and not isinstance(at[key], bool):
        with contextlib.suppress(OverflowError):
            at[key] = at[key] * rng.choice([-1, 2, 0.5, 1000, 1 << 20]) + rng.choice([0, 1, -1])
    else:
        at[key] = _value(rng)
    return tree


def _value(rng: Random) -> Any:
    """A copy, which may be altered in its turn."""
    return json.loads(json.dumps(rng.choice(VALUES)))


def _alter_bytes(rng: Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice([1, 2, 4, 8, 64, 1 << 20]))
    way = rng.randrange(7)
    if way == 0:
        del data[at:end]
    elif way == 1:
        data[at:at] = rng.choice(TOKENS)
    elif way == 2:
        data[at:end] = rng.choice(TOKENS)
    elif way == 3 and len(data) < 20_000:
        data[at:at] = data[at:end]
    elif way == 4 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif way == 5:
        data[at:end] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    else:
        del data[at:]


# --- one input -------------------------------------------------------------------------------------------------


def tried(reader: Reader, content: bytes, folder: Path) -> bool:
    """Whether the reader took the content; False if it refused it with one line. Raises whatever else it raises."""
    try:
        if reader.name:
            (folder / reader.name).write_bytes(content)
            reader.read(folder)
        else:
            reader.read(content.decode(errors="surrogateescape"))
    except (BadInput, RunFault) as error:
        assert 0 < len(str(error)) <= LONGEST, f"an error of {len(str(error))} characters: {str(error):.200}"
        return False
    return True


def forget() -> None:
    """Empty the caches of lowered blocks and their costs, which many different plans would fill."""
    block_cost.cache_clear()
    lower.cache_clear()


__all__ = ["READERS", "Reader", "altered", "forget", "lay_out", "tried"]
