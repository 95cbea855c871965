"""A real browser without a window."""

import os
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def browse(address, folder, *options):
    """Output of headless Chromium for an address: (stdout, stderr). `folder` holds its profile."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
         f"--user-data-dir={folder}", "--enable-logging=stderr", "--v=0", *options, address],
        capture_output=True, text=True, timeout=60, env=os.environ | {"HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr
