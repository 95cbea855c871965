"""Checkpoints: exact, written atomically, and refused in one line if damaged."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nasaug.core import tensorfile
from nasaug.core.errors import BadInput, RunFault

pytestmark = pytest.mark.usefixtures("empty_folder")
TENSORS = {
    "net.weight": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "net.count": torch.tensor(7),
    "best.slice": torch.arange(12.0).view(3, 4)[:, 1:3],
    "momentum.none": torch.empty(0),
}
STATE = {"step": 3, "macs": 0.1 + 0.2, "history": [{"val_top1": 90.0, "name": "é"}]}


def test_tensors_and_state_come_back_bit_for_bit():
    tensorfile.write("c", TENSORS, STATE)
    tensors, state = tensorfile.read("c")
    assert state == STATE and tensors.keys() == TENSORS.keys()
    for name, t in tensors.items():
        assert t.dtype == TENSORS[name].dtype and torch.equal(t, TENSORS[name])
    assert os.listdir() == ["c"]


def test_part_is_the_inverse_of_prefixed():
    both = tensorfile.prefixed("net", {"a": 1, "b.c": 2}) | tensorfile.prefixed("network", {"a": 3})
    assert tensorfile.part(both, "net") == {"a": 1, "b.c": 2} and tensorfile.part(both, "network") == {"a": 3}


def test_a_file_cut_anywhere_is_refused():
    tensorfile.write("c", TENSORS, STATE)
    whole = Path("c").read_bytes()
    for length in {0, 1, 7, 8, 9, 100, *range(0, len(whole), 97), len(whole) - 1}:
        Path("cut").write_bytes(whole[:length])
        with pytest.raises(BadInput, match="cut is truncated or not a safetensors file.*train again"):
            tensorfile.read("cut")


def test_no_damage_to_the_header_ends_in_another_error_than_bad_input():
    tensorfile.write("c", TENSORS, STATE)
    whole = Path("c").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for place in range(0, header, 3):
        for flipped in (0x01, 0x80):
            Path("bad").write_bytes(whole[:place] + bytes([whole[place] ^ flipped]) + whole[place + 1 :])
            try:
                tensorfile.read("bad")
            except BadInput as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > header / 6


@pytest.mark.parametrize("state", [None, "", "{", "[]", "3", "null", '"text"'])
def test_a_file_without_nasaug_state_is_refused(state):
    save_file({"weight": torch.zeros(3)}, "foreign", None if state is None else {tensorfile.STATE: state})
    with pytest.raises(BadInput, match="foreign has no nasaug state; give a file that nasaug wrote"):
        tensorfile.read("foreign")


@pytest.mark.parametrize("path", ["missing", "folder", "missing/deeper", "x" * 300])
def test_no_file_is_refused(path):
    os.mkdir("folder")
    with pytest.raises(BadInput, match="no file at"):
        tensorfile.read(path)


def test_a_full_disk_is_a_fault_and_leaves_the_old_checkpoint(monkeypatch):
    tensorfile.write("c", TENSORS, {"step": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFault, match="cannot write c: No space left on device; free some space"):
        tensorfile.write("c", TENSORS, {"step": 2})
    assert os.listdir() == ["c"] and tensorfile.read("c")[1] == {"step": 1}


def test_a_figure_that_is_not_finite_is_a_fault_and_writes_nothing():
    with pytest.raises(RunFault, match="not finite"):
        tensorfile.write("c", TENSORS, {"macs": float("nan")})
    assert os.listdir() == []
