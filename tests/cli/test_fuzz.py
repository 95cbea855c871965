"""Altered and hostile input gives a result or a one-line error; tests/full/test_many_inputs.py tries a million."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fuzzing import READERS, altered, lay_out, tried

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's about damaged images, pycocotools' about numpy


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    lay_out(folder)
    return folder


@pytest.mark.parametrize("name", READERS)
def test_any_input_is_taken_or_refused_in_a_line(scratch, name):
    reader = READERS[name]
    valid = reader.valid()
    for content in valid:
        tried(reader, content, scratch)
    for number in range(200):
        tried(reader, altered(Random(f"short/{name}/{number}"), valid, reader.kind), scratch)

    @settings(max_examples=20, deadline=None, database=None)
    @given(st.randoms(use_true_random=False))
    def any_other(rng):
        tried(reader, altered(rng, valid, reader.kind), scratch)

    any_other()


@pytest.mark.parametrize("name", sorted(READERS))
def test_what_is_altered_was_valid(scratch, name):
    assert any([tried(READERS[name], content, scratch) for content in READERS[name].valid()])


def test_an_input_follows_from_its_number_alone(scratch):
    valid = READERS["result"].valid()
    inputs = [altered(Random(number), valid, "json") for number in range(3000)]
    assert [altered(Random(number), valid, "json") for number in reversed(range(3000))] == inputs[::-1]
