"""Convert a finished run's net to LiteRT (.tflite), float and int8, in an environment of its own.

    python tools/litert.py runs/netaug-train-1 [--out FOLDER] [--data PATH] [--env .venv-litert]

The converter, litert-torch, needs torch below 2.15 and some gigabytes, so it cannot be one of nasaug's extras: the
first call makes the environment and installs it there, with this checkout; later calls use it. It is a tool for users,
so it is not in benchmarks/, and it must not touch the package's own environment, so it is not in nasaug/.

Writes model.tflite and model-int8.tflite, which take one image [1, 3, h, w] as `nasaug export`'s files do (int8 in
steps of its scale), and litert.json with their preprocessing, classes, sizes and scores. Each file is run in LiteRT's
own interpreter and compared with the net before it is written.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch<2.15", "litert-torch>=0.10", "ai-edge-litert>=2.3", "ai-edge-quantizer>=0.10")
CALIBRATION = 256  # training images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, help="a folder; default: litert in the run's")
    parser.add_argument("--data", help="where the run's images are now, if they moved")
    parser.add_argument("--env", type=Path, default=ROOT / ".venv-litert", help="the environment; made if missing")
    o = parser.parse_args()
    python = (o.env / "bin" / "python").absolute()  # not resolved, which would leave the environment
    if Path(sys.prefix) != python.parent.parent.resolve() and sys.prefix != str(python.parent.parent):
        out = o.out or o.run / "litert"
        if not (o.run / "model.safetensors").is_file() or out.exists():  # said before gigabytes are installed
            rule = f"{out} exists already; give another folder with --out, or remove it" if out.exists() else (
                f"{o.run} is no finished run; give the folder of one of train, netaug-train or prune"
            )
            parser.exit(2, f"litert: {rule}\n")
        install(o.env, python)
        # this checkout's nasaug, even if the environment was made by another that is gone
        within = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        sys.exit(subprocess.run([python, __file__, *sys.argv[1:]], env=within).returncode)

    from nasaug.core.errors import BadInput, RunFault

    try:
        convert(o.run, o.out or o.run / "litert", o.data)
    except BadInput as error:
        print(f"litert: {error}", file=sys.stderr)
        sys.exit(2)
    except RunFault as error:
        print(f"litert: {error}", file=sys.stderr)
        sys.exit(1)


def install(env: Path, python: Path) -> None:
    """Make the environment, unless the converter is there already."""
    if python.is_file() and subprocess.run([python, "-c", "import litert_torch"], capture_output=True).returncode == 0:
        return
    print(f"making {env}: some gigabytes, and some minutes", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", f"{ROOT}[data]", *PACKAGES], check=True)


def convert(run: Path, out: Path, data: str | None) -> None:
    """Write the files into a new folder, in the environment. Raises BadInput, or RunFault if a file's outputs differ
    from the net's."""
    import litert_torch  # type: ignore
    import torch
    from ai_edge_litert.interpreter import Interpreter  # type: ignore
    from ai_edge_quantizer import quantizer, recipe  # type: ignore

    from nasaug.core import files
    from nasaug.core.errors import RunFault
    from nasaug.deployment.export import finished
    from nasaug.deployment.formats import INT8_TOLERANCE, TOLERANCE
    from nasaug.deployment.source import Source

    source = Source.of(finished(run), data, True)
    assert source.data is not None and source.scorer is not None
    wanted = source.eager
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = {name: Path(folder, f"{name}.tflite") for name in ("model", "model-int8")}
        image = torch.zeros(1, 3, source.px, source.px)
        litert_torch.convert(source.folded.eval(), (image,)).export(str(made["model"]))
        drawn = source.data.train.take(CALIBRATION, seed=0)
        images = torch.cat([x for x, _ in source.scorer.batches(drawn, source.px)])
        ((key, ends),) = Interpreter(str(made["model"])).get_signature_list().items()
        asked = quantizer.Quantizer(str(made["model"]))
        asked.load_quantization_recipe(recipe.static_wi8_ai8())
        seen = {key: [{ends["inputs"][0]: x[None].numpy()} for x in images]}
        asked.quantize(asked.calibrate(seen)).export_model(str(made["model-int8"]))
        for name, path in made.items():
            net = runner(Interpreter(str(path)))
            got = source.outputs(net)
            if name == "model":
                difference, allowed = ((got - wanted).abs().max() / wanted.abs().max()).item(), TOLERANCE
            else:
                spread = (wanted - wanted.mean()).square().mean()
                difference, allowed = ((got - wanted).square().mean() / spread).sqrt().item(), INT8_TOLERANCE
            if not difference <= allowed:
                raise RunFault(f"{name}.tflite: its outputs differ from the net's by {difference:.2g}; not written")
            rows[name] = {
                "bytes": path.stat().st_size, "difference": difference, "allowed": allowed,
                "agreement": source.agreement(got, wanted), "compared": source.compared,
                "score": source.test_score(net, name), "trained": source.result.test_score,
            }  # fmt: skip
        out.mkdir(parents=True)
        for path in made.values():
            files.write_whole(out / path.name, path.read_bytes())
        files.write_json(out / "litert.json", {"format": "nasaug-litert/1", "facts": source.facts, "files": rows})
    metric = source.task.metric
    for name, row in rows.items():
        same = "" if row["agreement"] is None else f", {100 * row['agreement']:.2f} % the same class"
        print(
            f"{out / name}.tflite: {row['bytes']:,} bytes, off by {row['difference']:.1g} ({row['allowed']:g} allowed) "
            f"on {row['compared']}{same}, test {metric.label} {metric.show(row['score'])} "
            f"(trained {metric.show(row['trained'])})"
        )


def runner(interpreter: Any) -> Any:
    """A function from normalised images [n, 3, h, w] to outputs in float32; int8 ends are converted."""
    import numpy as np
    import torch

    interpreter.allocate_tensors()
    (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

    def stored(x: np.ndarray) -> np.ndarray:
        scale, zero = given["quantization"]
        return x if given["dtype"] == np.float32 else np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)

    def run(images: torch.Tensor) -> torch.Tensor:
        rows = []
        for x in images.numpy():
            interpreter.set_tensor(given["index"], stored(x[None]))
            interpreter.invoke()
            rows.append(interpreter.get_tensor(out["index"]).astype(np.float32))
        scale, zero = out["quantization"] if out["dtype"] != np.float32 else (1.0, 0)
        return torch.from_numpy((np.concatenate(rows) - np.float32(zero)) * np.float32(scale))

    return run


if __name__ == "__main__":
    main()
