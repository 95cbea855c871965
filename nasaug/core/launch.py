"""How this process was started: alone, or as one of several by torchrun or what sets the same variables."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """(rank, number) of the processes that torchrun, or what sets the same variables, started; (0, 1) if none did."""
    if "MASTER_ADDR" not in os.environ:
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def restarts() -> int:
    """How often torchrun has started these processes again, because one of them had ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
