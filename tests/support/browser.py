"""A real browser without a window."""

import os
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: make browser")
# as a name of a class, an arm, a folder: it has no slash, which no folder's name can have
SCRIPT = "<script>document.title='owned'"
IMAGE = "<img src=x onerror=document.title='owned'>"


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


def assert_escaped(shown, folder):
    """A page that shows SCRIPT and IMAGE as text and runs neither, even if its policy would let scripts run."""
    assert "default-src 'none'" in shown
    opened = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", shown)
    assert opened != shown
    (folder / "page.html").write_text(opened)
    dom, _ = browse((folder / "page.html").as_uri(), folder / "profile", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]
    assert title != "owned" and "<script" not in dom and "<img" not in dom
    text = dom.replace("<wbr>", "")
    assert "&lt;script&gt;document" in text or "&lt;img src" in text
