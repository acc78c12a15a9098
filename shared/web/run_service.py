"""The main function of the service scripts: logging, settings, memory settings, readable errors."""

import argparse
import ctypes
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from shared.errors import SetupError, StorageFailed
from shared.files import restrict_permissions, restrict_umask
from shared.images.decode import silence_decoders
from shared.settings import Settings, load_settings
from shared.web.backend import Backend
from shared.web.server.ports import check_port
from shared.web.server.run import run_service

# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
# Bytes from which a block is mapped on its own, and that may stay free at the end of the heap.
MMAP_THRESHOLD = 64 * 1024
TRIM_THRESHOLD = 1024 * 1024


def return_freed_memory() -> None:
    """Make glibc return large blocks to the system as soon as they are freed. Call it before starting threads.

    By default, glibc raises the mapping threshold to the size of the last freed block, and keeps an arena for every few
    threads: after a hundred uploads of 1600x1200 pixels, 340 MB stayed in use, with this setting 84. Other C libraries
    and systems do not need it.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def main(build: Callable[[Backend], Flask], port: Callable[[Settings], int], port_setting: str) -> int:
    """Run the service whose application `build` returns; returns the exit code."""
    parser = argparse.ArgumentParser(description="Settings are environment variables; docs/settings.md lists them.")
    parser.add_argument("--probe-file", type=Path, help="write the URL of the liveness check to this file")
    probe_file = parser.parse_args().probe_file
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    return_freed_memory()
    silence_decoders()
    restrict_umask()
    try:
        settings = load_settings()
        if probe_file is None:
            # Started by hand: no launcher has done it.
            restrict_permissions(settings.data_dir, ours=settings.has_own_data_dir)
        check_port(settings.host, port(settings), port_setting)
        backend = Backend(settings)
        backend.start()
        try:
            run_service(build(backend), settings, port(settings), probe_file)
        finally:
            backend.stop()
    except StorageFailed as error:
        sys.stderr.write(f"files: {error.message} ({error.hint})\n")
        return 1
    except SetupError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"{error.step}: {error.message}{hint}\n")
        return 1
    return 0
