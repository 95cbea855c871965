"""Results on a GPU, if there is one, match the CPU's; benchmarks/gpu.py, tested without one."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.py"
METHODS = "plain", "NetAug", "sandwich", "GradAug"
DEVICE = "cuda"
WITHOUT = {"CUDA_VISIBLE_DEVICES": "", "NASAUG_KERNELS": "off", "OMP_NUM_THREADS": "1"}  # compile nothing

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible to torch here")


@pytest.fixture
def sections(monkeypatch):
    """benchmarks/gpu_sections.py. Imported lazily: finding out that there is no GPU needs only torch."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_sections

    return gpu_sections


@pytest.fixture
def gpu(sections):
    """benchmarks/gpu.py."""
    import gpu

    return gpu


# --- on a GPU -------------------------------------------------------------------------------------------------


@pytest.fixture
def exact(sections):
    """The device's runtime, computing in float32 and not in TF32."""
    runtime = sections.open_runtime(DEVICE)
    with sections.exact():
        yield runtime


@pytest.fixture
def cpu(sections):
    return sections.open_runtime("cpu")


@pytest.fixture
def train(sections):
    """train(method, runtime, steps): a trainer after that many steps, and its mean losses over them."""
    shape = sections.Shape(32, 64, 10)
    data = sections.images_of(shape, 128)

    def run(method, runtime, steps, trainer=None):
        trainer = trainer or sections.trainer_of(*sections.methods(shape)[method], data, runtime, shape.batch)
        while trainer.step < steps:
            trainer.train_step(*sections.batch_of(data, shape.batch, number=trainer.step))
        return trainer, trainer.losses()

    return run


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("method", METHODS)
def test_steps_on_a_gpu_agree_with_the_cpus(method, train, cpu, exact, sections):
    (begun, _), (here, losses), (there, found) = (train(method, r, n) for r, n in ((cpu, 1), (cpu, 3), (exact, 3)))
    assert found == pytest.approx(losses, rel=1e-3)
    assert next(there.net.parameters()).device.type == DEVICE
    before, one, two = (sections.weights(trainer.net) for trainer in (begun, here, there))
    assert sections.distance(one - before, two - before) < 0.05


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_step_in_bf16_is_finite_and_near_float32(method, train, sections):
    _, exactly = train(method, sections.open_runtime(DEVICE), 1)
    half, losses = train(method, sections.open_runtime(DEVICE, bf16=True), 1)
    assert torch.isfinite(sections.weights(half.net)).all()
    assert losses == pytest.approx(exactly, rel=0.1, abs=0.05)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_run_resumed_on_a_gpu_comes_near_an_uninterrupted_one(method, train, exact, sections, tmp_path):
    whole, losses = train(method, exact, 4)
    begun, _ = train(method, exact, 2)
    begun.save(tmp_path / "checkpoint.safetensors")
    resumed, _ = train(method, exact, 0)
    resumed.load(tmp_path / "checkpoint.safetensors")
    assert resumed.step == 2
    _, found = train(method, exact, 4, resumed)
    assert found == pytest.approx(losses, rel=1e-3)
    before, one, two = (sections.weights(trainer.net) for trainer in (begun, whole, resumed))
    assert sections.distance(one - before, two - before) < 0.05


@pytest.fixture
def judged(train, cpu, sections):
    """judged(runtime): scores on the device of some subnets of a trained supernet, evaluated as in a search."""
    trained, _ = train("sandwich", cpu, 2)
    data = sections.made_up(256, 200)
    (subnets,) = sections.plans_of(trained, 1, *sections.batch_of(data, 4))

    def judge(runtime):
        net = sections.Net(trained.net.plan, None).to(runtime.device)
        net.load_state_dict(trained.net.state_dict())
        scorer = sections.Scorer(data, sections.Classify(10), runtime, 128)
        small = [scorer.calibrated(net, plan) for plan in subnets]
        return small, [torch.cat(scorer.judged(each, data.val)).cpu() for each in small]

    return judge


@pytest.mark.gpu
@on_gpu
def test_calibrated_nets_have_the_cpus_statistics_and_outputs(judged, cpu, exact, sections):
    (here, _), (there, _) = judged(cpu), judged(exact)
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for one, two in zip(here, there, strict=True):
        for (name, a), b in zip(one.named_buffers(), two.buffers(), strict=True):
            torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        with torch.inference_mode():
            assert sections.distance(one(x).double(), two(x.to(exact.device)).double().cpu()) < 1e-3


@pytest.mark.gpu
@on_gpu
def test_candidates_get_the_cpus_scores_on_a_gpu(judged, cpu, exact):
    (_, here), (_, there) = judged(cpu), judged(exact)
    for one, two in zip(here, there, strict=True):
        assert (one != two).float().mean() <= 0.01  # an image on the boundary of two classes may fall either way


@pytest.mark.gpu
@on_gpu
def test_a_captured_step_gives_the_eager_ones_gradients(sections):
    sizes = sections.Sizes(shapes=(sections.Shape(32, 16, 10),), drawn=2, rounds=1)
    rows = dict(sections.graphs(sections.Bench(DEVICE, sizes), 0.0))
    assert rows and all(row["gradients_agree"] for row in rows.values())


# --- the script, without a GPU --------------------------------------------------------------------------------


def test_the_script_measures_every_section_in_tiny_sizes(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--device", "cpu"]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | WITHOUT)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(out.read_text())
    status = {name: entry["status"] for name, entry in report["sections"].items()}
    for name in ("graphs", "tests"):
        assert status.pop(name) == "skipped" and "CUDA" in report["sections"][name]["reason"]
    names = "environment", "agreement", "steps", "loader", "candidates"
    assert status == dict.fromkeys(names, "measured"), report
    figures = {name: entry["figures"] for name, entry in report["sections"].items()}
    assert all(figures["agreement"][method]["agrees"] for method in METHODS)
    assert figures["agreement"]["bf16"] == figures["steps"]["bf16"] == "skipped: nasaug runs in bf16 on a GPU alone"
    (shape,) = (row for row in figures["steps"].values() if "steps" in row)
    assert set(shape["netaug_over_plain"]) == {"published", "NCHW", "nasaug"}
    assert all(row["images_per_second"] > 0 for row in shape["steps"].values())
    assert figures["loader"]["JPEG stream"]["NetAug_images_per_second"] > 0
    assert figures["candidates"]["a minute"]["nasaug"] > 0 and figures["candidates"]["scores"]["agrees"]
    for name in names:
        assert f"{name}: measured" in ran.stdout


def test_without_a_gpu_the_script_ends_in_one_line(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    told = capsys.readouterr()
    assert ended.value.code == 2 and not list(tmp_path.iterdir()) and not told.out
    assert told.err.count("\n") == 1 and "--device cpu" in told.err


def carried_out(gpu, measures, seconds=60.0):
    """The report of these generators as sections, and the intermediate reports that were saved."""
    chosen, saved = {name: gpu.Section(measure, 1) for name, measure in measures.items()}, []
    report = gpu.carry_out(chosen, None, lambda r: saved.append(copy.deepcopy(r)), time.monotonic() + seconds)
    json.dumps(report, allow_nan=False)
    assert gpu.table(report)
    return report, saved


def test_a_sections_fault_is_noted_and_the_others_go_on(gpu):
    def broken(bench, until):
        yield "before", {"x": float("nan"), "y": 1 / 3}
        raise RuntimeError("the device is lost")

    def absent(bench, until):
        raise gpu.sections.Skipped("not here")
        yield

    def well(bench, until):
        yield "value", (1, 2.0)

    def partly(bench, until):
        yield "first", gpu.sections.tried(lambda: 1 / 0)
        yield "second", 2

    report, saved = carried_out(gpu, {"broken": broken, "absent": absent, "well": well, "partly": partly})
    assert report["broken"]["status"] == "failed" and report["broken"]["error"] == "RuntimeError: the device is lost"
    assert report["broken"]["figures"] == {"before": {"x": "nan", "y": 0.333333}}
    assert saved[0]["broken"]["figures"] and "well" not in saved[0]
    assert (report["absent"]["status"], report["absent"]["reason"]) == ("skipped", "not here")
    assert report["well"]["status"] == "measured" and report["well"]["figures"] == {"value": [1, 2.0]}
    assert report["partly"]["status"] == "measured in part" and report["partly"]["figures"]["second"] == 2
    error = report["partly"]["figures"]["first"]["error"]
    assert re.fullmatch(r"ZeroDivisionError: division by zero \(test_gpu\.py, line \d+\)", error)


def test_a_section_that_takes_too_long_is_cut_off_and_one_without_time_is_skipped(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "LEAST", 0.1)

    def slow(bench, until):
        yield "before", 1
        yield "never", gpu.sections.tried(lambda: time.sleep(30))

    begun = time.monotonic()
    report, _ = carried_out(gpu, {"slow": slow, "next": slow}, 0.5)
    assert report["slow"]["status"] == report["next"]["status"] == "cut off"
    assert report["slow"]["figures"] == {"before": 1}
    report, _ = carried_out(gpu, {"slow": slow}, 0.05)
    assert report["slow"]["status"] == "skipped" and "no time" in report["slow"]["reason"]
    assert time.monotonic() - begun < 10


def test_the_published_structure_slices_what_nasaug_runs(sections):
    method, base = sections.methods(sections.Shape(160, 256, 1000))["NetAug"]
    space, _ = method.space(base)
    largest = sections.plan.plan(space, space.largest, 1000)
    for plan, pick in ((base.plan, min), (largest, max)):
        assert sections._channels(plan) == sections.published.widths(pick)


def test_graphs_measure_the_steps_that_they_compare(sections):
    bench = sections.Bench("cpu", sections.TRIAL)
    (row,) = dict(sections.graphs(bench, 0.0, capture=lambda work: work)).values()
    assert row["gradients_agree"] and row["gradients_apart"] < 1e-5 and set(row["times_as_fast"]) == {"plain", "NetAug"}
    (row,) = dict(sections.graphs(bench, 0.0, capture=lambda work: lambda: None)).values()
    assert not row["gradients_agree"]  # a replay that does nothing is detected


MADE_UP = """
import pytest

@pytest.mark.gpu
def test_well(): pass

@pytest.mark.gpu
def test_ill(): assert 1 == 2

def test_other(): raise RuntimeError
"""


def test_the_marked_tests_are_run_and_their_failures_told(sections, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_made_up.py").write_text(MADE_UP)
    (tmp_path / "tests" / "test_broken.py").write_text("import no_such_module")
    rows = dict(sections.tests(sections.Bench("cuda", sections.TRIAL), time.monotonic() + 60))
    assert rows["exit"] == 1 and "1 failed, 1 passed" in rows["closing line"]
    assert any("test_ill" in line for line in rows["failures"])
    assert any("test_broken" in line for line in rows["failures"])
    (tmp_path / "tests" / "test_slow.py").write_text("import time; time.sleep(60)")
    rows = dict(sections.tests(sections.Bench("cuda", sections.TRIAL), time.monotonic()))
    assert "cut off" in rows["exit"]


def test_a_batch_that_does_not_fit_is_halved(sections):
    tried = []

    def measure(batch):
        tried.append(batch)
        if batch > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"batch": batch}

    assert sections.fitted(measure, 128) == {"batch": 32} and tried == [128, 64, 32]
    with pytest.raises(torch.OutOfMemoryError):
        sections.fitted(lambda batch: measure(1000), 64)
