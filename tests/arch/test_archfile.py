"""Arch files: their content, round trips, and that no edit of them ends in a traceback."""

import copy
import json
import os
from pathlib import Path

import pytest

import nasaug
from nasaug.arch import archfile
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import from_dict, load
from nasaug.core.errors import BadInput

JUNK = (None, True, -1, 0, 1.5, 10**30, float("nan"), "", "junk", [], [[]], {}, {"a": 1})
GONE = object()


@pytest.fixture
def found(empty_folder):
    """An arch file as a search writes it, with its supernet beside it."""
    space = load("mobilenetv2-small", BLOCKS)
    arch = space.named("mobilenetv2-small")
    Path("supernet.safetensors").touch()
    facts = {"budget": {"macs": 25_000_000}, "val_top1": 90.5, "data": "digits"}
    found = ArchFile(plan(space, arch, 10), "mine", space, arch, Path("supernet.safetensors"), facts)
    found.save("found.json")
    return found


def edited(change):
    """The path of found.json after applying `change` to its content."""
    data = json.loads(Path("found.json").read_text())
    change(data)
    Path("found.json").write_text(json.dumps(data))
    return "found.json"


def test_an_arch_file_comes_back_as_it_was(found):
    again = archfile.read("found.json")
    assert (again.plan, again.name, again.space, again.arch) == (found.plan, "mine", found.space, found.arch)
    assert again.facts == found.facts and again.supernet.samefile(found.supernet)


def test_a_network_that_an_own_space_names_is_an_architecture_like_any_other(empty_folder):
    Path("own").mkdir()
    shipped = Path(nasaug.__file__).parents[1] / "search_spaces/mobilenetv2-small.toml"
    Path("own/mine.toml").write_text(shipped.read_text())
    found = archfile.read("own/mine.toml:mobilenetv2-small", classes=10)
    assert found.plan == archfile.read("mobilenetv2-small", classes=10).plan and found.name == "mine:mobilenetv2-small"
    assert not archfile.is_path("own/mine.toml:mobilenetv2-small") and archfile.is_path("own/mine.toml")
    with pytest.raises(BadInput, match=r"unknown architecture in own/mine.toml: 'mobilenetv2-smal'; did you mean"):
        archfile.read("own/mine.toml:mobilenetv2-smal")
    with pytest.raises(BadInput, match=r"is a search space, not a network; .* own/mine.toml:mobilenetv2-small"):
        archfile.read("own/mine.toml")


def test_an_arch_file_is_readable_and_says_all(found):
    text = Path("found.json").read_text()
    data = json.loads(text)
    assert len(text.splitlines()) > 100 and data["format"] == "nasaug-arch/1"
    assert data["cost"] == cost(found.plan).known and data["choices"] == found.space.choices(found.arch)
    assert from_dict(data["space"], "found.json", BLOCKS) == found.space
    assert data["budget"] == {"macs": 25_000_000} and data["supernet"] == "supernet.safetensors"


def test_the_supernet_is_found_through_a_linked_folder(found, tmp_path):
    """Runs on another disk, linked into the working directory at a different depth."""
    disk = tmp_path / "far" / "far" / "away"
    disk.mkdir(parents=True)
    os.rename("supernet.safetensors", disk / "supernet.safetensors")
    os.mkdir("work")
    os.symlink(disk, "work/runs")
    moved = ArchFile(found.plan, "mine", supernet=Path("work/runs/supernet.safetensors"))
    for path in ("work/runs/found.json", "work/found.json"):
        moved.save(path)
        assert archfile.read(path).supernet.is_file(), path


def test_moved_together_they_still_find_each_other(found):
    os.mkdir("elsewhere")
    for name in ("found.json", "supernet.safetensors"):
        os.rename(name, f"elsewhere/{name}")
    assert archfile.read("elsewhere/found.json").supernet.is_file()


def test_other_sizes(found):
    wider = archfile.read("found.json", classes=7)
    assert wider.plan.classes == 7 and wider.plan.blocks[-1].out == 7
    assert wider.space == found.space and wider.supernet.samefile(found.supernet)  # all but the classifier is inherited
    smaller = archfile.read("found.json", resolution=20)
    assert smaller.plan == found.plan.at(20) and smaller.space is None
    assert smaller.supernet.samefile(found.supernet)  # weights do not depend on the resolution
    assert archfile.read("found.json", resolution=28, classes=10).space == found.space


@pytest.mark.parametrize("sizes", [{"resolution": r} for r in (-8, 7, 1025)] + [{"classes": 0}], ids=str)
def test_impossible_sizes_are_refused(found, sizes):
    for name in ("found.json", "mobilenetv2-small"):
        with pytest.raises(BadInput, match="must be"):
            archfile.read(name, **sizes)


def test_a_named_architecture_has_its_own_sizes(empty_folder):
    named = archfile.read("mobilenetv2-small")
    assert (named.plan.resolution, named.plan.classes, named.space, named.supernet) == (28, 10, None, None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mobilenetv2-tinny", "unknown architecture .* mobilenetv2-tiny"), ("", "unknown architecture ''"),
        ("x" * 5000, "unknown architecture"), ("missing.json", "cannot read missing.json"),
        ("no/such", "cannot read no/such"), ("folder", "cannot read folder: Is a directory"),
        ("binary", "not a text file"), ("cut.json", "cut-off JSON"), ("list.json", "nasaug-arch/1' is need"),
        ("other.json", "nasaug-result/1'.*'nasaug-arch/1' is needed"), ("bare.json", "needs plan"),
        ("deep.json", "deep.json"), ("digits.json", "digits.json"),
    ],
)  # fmt: skip
def test_what_is_no_arch_is_refused(found, name, said):
    os.mkdir("folder")
    Path("binary").write_bytes(bytes(range(256)))
    Path("cut.json").write_text(Path("found.json").read_text()[:500])
    Path("list.json").write_text("[]")
    Path("other.json").write_text('{"format": "nasaug-result/1"}')
    Path("bare.json").write_text('{"format": "nasaug-arch/1"}')
    Path("deep.json").write_text("[" * 100_000)
    Path("digits.json").write_text("9" * 5_000)
    with pytest.raises(BadInput, match=said) as refused:
        archfile.read(name)
    assert "\n" not in str(refused.value)


def test_choices_that_do_not_give_the_plan_are_refused(found):
    def thinner(data):
        data["choices"]["s1.width"] = 8

    with pytest.raises(BadInput, match="found.json: its choices do not match its plan"):
        archfile.read(edited(thinner))


@pytest.mark.parametrize("share", [-0.1, 1, "half", True, None])
def test_a_pruned_share_is_a_share(found, share):
    with pytest.raises(BadInput, match="found.json: pruned = .* must be a share"):
        archfile.read(edited(lambda data: data.update(pruned=share)))


def places(data, at=()):
    """The keys that lead to every table, list and value; in lists and tables of alike items, only to the first."""
    yield at
    items = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*at, key))


def replaced(data, at, value):
    if not at:
        return value
    data = copy.deepcopy(data)
    owner = data
    for key in at[:-1]:
        owner = owner[key]
    if value is GONE:
        del owner[at[-1]]
    else:
        owner[at[-1]] = value
    return data


@pytest.mark.parametrize("without", [(), ("space", "choices")])
def test_no_edit_ends_in_another_error_than_bad_input(found, without):
    whole = json.loads(Path("found.json").read_text())
    whole = {key: value for key, value in whole.items() if key not in without}
    read = refused = 0
    for at in places(whole):
        for junk in JUNK + ((GONE,) if at else ()):
            Path("edited.json").write_text(json.dumps(replaced(whole, at, junk)))
            try:
                assert cost(archfile.read("edited.json").plan).macs > 0
                read += 1
            except BadInput as error:
                refused += 1
                assert "\n" not in str(error), (at, junk)
            except Exception as error:
                error.add_note(f"{at} = {junk!r}")
                raise
    assert read > 20 and refused > 100, (read, refused)


@pytest.mark.parametrize(
    ("given", "field", "told"),
    [({"resolution": "32"}, "resolution", "resolution = 32 must be a whole number, not of type str"),
     ({"resolution": 32.0}, "resolution", "must be a whole number, not of type float"),
     ({"resolution": True}, "resolution", "not of type bool"), ({"classes": "10"}, "classes", "not of type str")],
)  # fmt: skip
def test_sizes_of_another_type_are_refused(given, field, told):
    with pytest.raises(BadInput, match=told) as refused:
        nasaug.cost("mobilenetv2-tiny", **given)
    assert (refused.value.field, refused.value.value) == (field, given[field])


@pytest.mark.parametrize("function", [nasaug.cost, nasaug.train, nasaug.compare, nasaug.sweep])
def test_what_can_be_no_network_is_refused(function):
    with pytest.raises(BadInput, match="arch = 5 names no network: give the path") as refused:
        function(arch=5)
    assert refused.value.field == "arch"
