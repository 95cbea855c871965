"""`nasaug watch` as a process."""

import re
import signal
import subprocess
import sys
import urllib.request

from support.commands import refused


def test_it_prints_its_address_answers_there_and_ends_cleanly_at_ctrl_c(empty_folder):
    (empty_folder / "runs").mkdir()
    command = [sys.executable, "-m", "nasaug", "watch", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = process.stdout.readline()
        address = re.fullmatch(r"(http://127\.0\.0\.1:\d+/) shows the runs in runs; Ctrl-C ends it\n", said)[1]
        with urllib.request.urlopen(address) as answer:
            assert b"nasaug watch" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "the page is closed; runs go on\n"
    assert process.returncode == 0


def test_what_cannot_be_watched_is_refused(empty_folder):
    assert "runs is not a folder" in refused("watch", "--no-browser")
    assert "--port 70000 must be 0 to 65535" in refused("watch", ".", "--port", "70000", "--no-browser")
