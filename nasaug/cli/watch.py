"""`watch`."""

from __future__ import annotations

from pathlib import Path

from .options import Flag, Whole


def watch(folder: Path = Path("runs"), /, *, port: Whole = None, no_browser: Flag = False):
    """Watch runs on a page in the browser: stage, time left, curves, candidates and front; a finished run's own page.

    Examples:

      nasaug watch

      nasaug watch runs/search-1

      nasaug watch experiments/ --port 9000 --no-browser

    Only this machine can open the page. It refreshes itself, and runs do not notice it. Ctrl-C ends it.

    :param folder: A run, or a folder that holds runs; default: runs.
    :param port: The port; default 8765, or any free one if that is in use.
    :param no_browser: Print the page's address, and open no browser.
    """
    import os
    import sys
    import threading
    import webbrowser

    from ..core.signals import Stopped
    from ..core.streams import tell
    from ..reporting.watch_server import Server

    with Server(folder, port) as server:
        tell(f"{server.url} shows the runs in {folder}; Ctrl-C ends it", sys.stdout)
        # without a display, the browser would be one in this terminal
        display = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
        if display and not no_browser:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever(poll_interval=0.2)
        except Stopped:
            tell("the page is closed; runs go on", sys.stdout)
