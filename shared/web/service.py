"""What the scripts of the services have in common: logging, settings, and errors that a person can read."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from shared.decoding import silence_decoders
from shared.errors import SetupError, StorageFailed
from shared.rights import close_to_others, keep_new_files_private
from shared.settings import Settings, load_settings
from shared.web.backend import Backend
from shared.web.memory import return_freed_memory
from shared.web.serve import check_port, run_service


def main(build: Callable[[Backend], Flask], port: Callable[[Settings], int], port_setting: str) -> int:
    """Runs the service that `build` makes; returns the exit code."""
    parser = argparse.ArgumentParser(description="Settings are environment variables; README.md lists them.")
    parser.add_argument("--probe-file", type=Path, help="write here where a supervisor can ask whether it lives")
    probe_file = parser.parse_args().probe_file
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    return_freed_memory()
    silence_decoders()
    keep_new_files_private()
    try:
        settings = load_settings()
        if probe_file is None:
            # No launcher did it.
            close_to_others(settings.data_dir, ours=settings.has_own_data_dir)
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
