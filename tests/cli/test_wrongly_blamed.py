"""Messages name the real cause, not an option that nobody gave or a full disk that is not full."""

import errno
import os
from pathlib import Path

from PIL import Image

from nasaug.rundirs import folder
from support.commands import QUICK, call, done, faulty, refused, tree

NAMED = ("train", *QUICK, "--arch", "mobilenetv2-tiny", "--method", "baseline", "--set", "epochs=1")
ALL = ("--set", "data.train_images=0")


def write(names: str, px: int) -> None:
    for i in range(30 * len(names)):
        folder = Path("small", names[i % len(names)])
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((px, px), i).save(folder / f"{i}.png")


def test_images_too_small_for_a_network(laid_out):
    write("ab", 4)
    said = refused(*NAMED, "--data", "small", *ALL)
    assert "the images of small have 4 px, but a network takes 8 to 1024 px; give --resolution 32" in said
    assert "--resolution 4 must be 8 to" in refused(*NAMED, "--data", "small", *ALL, "--resolution", "4")
    done(*NAMED, "--data", "small", *ALL, "--resolution", "8")


def test_a_class_that_was_added_since_the_run_began(laid_out):
    write("ab", 8)
    done(*NAMED, "--data", "small", *ALL, "--run", "run")
    write("abc", 8)
    said = refused("train", "--resume", "--run", "run")
    assert "for 2 classes, and small has 3 now; give it the same classes again" in said and "--arch" not in said


def test_a_file_system_without_locks(laid_out, monkeypatch):
    def no_locks(_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder, "_lock", no_locks)
    before = tree()
    said = faulty(call(*NAMED, "--run", "run"))
    assert tree() == before
    assert "run/.lock: No locks available; its file system has no locks" in said and "free some space" not in said
