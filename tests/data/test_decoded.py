"""Decoded images cached on disk: used if nothing changed, never if something did, and never an obstacle."""

import os

import pytest

from nasaug.data import describe, folder, load, pixel_cache
from support.images import config, same, write_folder


@pytest.fixture
def pets(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pixel_cache, "WORTH", 1)
    monkeypatch.setattr(pixel_cache, "SETTLED_NS", -(10**18))  # these files have only just been written
    return write_folder(tmp_path / "pets", each=50)


def kept(pets):
    return sorted((pets.parent / "cache/nasaug/decoded").glob("*"))


def unread(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a file was opened")

    monkeypatch.setattr(folder, "_each", refuse)


def test_a_second_run_opens_no_image_and_sees_the_same(pets, monkeypatch):
    first = load(config(pets))
    assert len(kept(pets)) == 1
    unread(monkeypatch)
    again = load(config(pets))
    assert describe(config(pets)).size == again.size and again.key == first.key
    assert same(again.finish().ordered(9), first.finish().ordered(9))
    with pytest.raises(AssertionError, match="opened"):
        load(config(pets, keep_decoded=False))


@pytest.mark.parametrize("change", ["touched", "rewritten", "removed", "added"])
def test_a_changed_folder_is_decoded_anew_and_its_old_pixels_go(pets, change):
    load(config(pets))
    (before,) = kept(pets)
    image = next(pets.rglob("*.png"))
    if change == "touched":
        os.utime(image, (1, 1))
    elif change == "rewritten":  # as unpacking an archive does
        old, content = image.stat(), image.read_bytes()
        image.write_bytes(content)
        os.utime(image, ns=(old.st_atime_ns, old.st_mtime_ns))
    elif change == "removed":
        image.unlink()
    else:
        image.with_name("new.png").write_bytes(image.read_bytes())
    data = load(config(pets))
    count = {"touched": 100, "rewritten": 100, "removed": 99, "added": 101}[change]
    assert len(data.train) + len(data.val) + len(data.finish()) == count
    (after,) = kept(pets)
    assert after != before


def test_what_cannot_be_kept_or_read_is_no_error(pets, monkeypatch):
    first = load(config(pets))
    (path,) = kept(pets)
    path.write_bytes(path.read_bytes()[:99])
    assert load(config(pets)).key == first.key
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where the folder would be")
    assert load(config(pets)).key == first.key

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(pixel_cache.Path, "is_file", denied)
        assert load(config(pets)).key == first.key
    assert load(config(pets, memory_mb=0)).streamed


@pytest.mark.parametrize("home", ["~nobody-at-all", "/dev/null/home", "/proc"])
def test_without_a_home_all_goes_on_without_the_cache(pets, monkeypatch, home):
    first = load(config(pets))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", home)
    assert load(config(pets)).key == first.key and describe(config(pets)).size == 8


def test_few_images_are_not_kept_and_of_many_folders_the_latest(pets, monkeypatch):
    written = []
    for number in range(6):
        load(config(write_folder(pets.parent / f"pets{number}", each=20, seed=number)))
        (new,) = set(kept(pets)) - set(written)
        os.utime(new, (number, number))
        written.append(new)
    assert kept(pets) == sorted(written[-pixel_cache.KEPT :])
    monkeypatch.setattr(pixel_cache, "WORTH", 101)
    load(config(pets))
    assert len(kept(pets)) == pixel_cache.KEPT
