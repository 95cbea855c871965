"""A further process of a search: it judges candidates for the search that leads the run."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from typing import Any

from ..config.layers import load
from ..core.errors import BadInput
from ..core.progress import say
from ..core.signals import deferred_stop
from ..pool.shared import is_begun, wait_for
from ..pool.storage import absolute_storage, own_storage, storage_faults
from ..rundirs.folder import HIDDEN, RunDir, without_passwords
from ..training.begin import at_path, begun_record
from ..training.options import Options
from ..training.recipe import Recipe
from .search import SearchJob
from .stages import depends, load_supernet, prepare, shaped


def judge_for(run: RunDir, kept: dict[str, Any], storage: str | None, options: Options, wait_s: float) -> None:
    """Judge candidates until none is left to begin. `kept` is the run's job.json, `storage` its URL if that is given,
    `wait_s` how long its supernet is waited for.

    Writes into the storage alone. Raises BadInput, RunFault, or Stopped."""
    if run.finished:
        say(f"{run.path} is finished already")
        return
    wait_for(run.supernet_file.is_file, f"the supernet {run.supernet_file}", wait_s)
    if run.environment().get("ranks", 1) != 1:
        rule = "is searched by processes that torchrun started, each of which keeps the study itself"
        remedy = "start a new search without torchrun, which others can join"
        raise BadInput.of(argument="run", value=run.path, rule=rule, remedy=remedy, apart=True)
    if kept["storage"] is None and storage and (run.path / "study.db").exists():
        named = storage.removeprefix("sqlite:///")
        if os.path.realpath(named) == os.path.realpath(run.path / "study.db"):
            storage = None  # the run's own
    job = SearchJob(storage=storage, options=options)
    recipe = at_path(load(run.recipe_file, Recipe), options.data)
    _check_study(storage, kept, run)
    request = replace(job.resumed(kept, run), timeout=None)
    job.check_device(run, kept)
    ready = prepare(recipe, request, options, begun=begun_record(run, recipe), resumed=True)
    with own_storage(run.path) as own, tempfile.TemporaryDirectory(prefix="nasaug-") as folder:
        mine = RunDir(folder)  # nothing is written into the run, which another process leads
        if run.shapes_file.is_file():
            shutil.copy(run.shapes_file, mine.shapes_file)
        url = request.storage or own
        wait_for(partial(is_begun, url), f"the study of {run.path}", wait_s)
        ready, search, _ = shaped(ready, mine, url)
        search.net = load_supernet(run.supernet_file, ready.largest).to(ready.runtime.device)
        search.of, search.run_path, search.helps = depends(ready, run), run.path, True
        with deferred_stop() as pending, storage_faults(url):
            search.run(pending, lambda *_: None)
    say(f"nothing is left to begin; {len(search.scores)} candidates of {run.path} are judged")


def _check_study(storage: str | None, kept: dict[str, Any], run: RunDir) -> None:
    """Raises BadInput for a storage that is not the one that the search was begun with."""
    begun = kept["storage"]
    if storage is not None and without_passwords(absolute_storage(storage)) != begun:
        remedy = "leave it out" if begun is None or HIDDEN not in begun else f"give {begun} with the password"
        rule = f"is not the storage of {run.path}, which is {begun or 'in its folder'}"
        raise BadInput.of(argument="study", value=without_passwords(storage), rule=rule, remedy=remedy)
