"""Ends a process when its parent is gone; nothing heavy is imported, since a child watches before torch is there."""

from __future__ import annotations

import os
import signal
import threading
import time

_WATCH_SECONDS = 0.5


def end_with_parent(parent: int) -> None:
    """Ends this process, and what it started, when the process `parent` (its id) is no longer this one's parent.

    A process whose parent was killed has another parent at once, on Linux and macOS; Windows keeps the id, so that
    nothing is watched there.
    """
    if os.name != "posix":
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
