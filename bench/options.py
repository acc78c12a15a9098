"""Measures how long a user interface waits for all its choices: `python -m bench.options [ROUNDS]`.

Each round requests GET /object_info from ComfyUI, as its own page does, and GET /api/options from our service, once
from its cache and once after the cache has expired, so that the service asks the engine again. Compare the ratios,
round by round. Run it in the project's environment, with nothing else running.
"""

import argparse
import statistics
import sys
import time

import requests

from bench.stack import running_stack
from shared.engine.catalog import FRESH_SECONDS


def seconds(session: requests.Session, url: str) -> float:
    """Return the seconds until the whole response has arrived."""
    begun = time.perf_counter()
    session.get(url, timeout=60).raise_for_status()
    return time.perf_counter() - begun


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    rounds = parser.parse_args().rounds
    rows: dict[str, list[float]] = {"engine": [], "ours, cached": [], "ours, expired": []}
    with running_stack() as stack, requests.Session() as session:
        session.trust_env = False
        session.headers.update(stack.access.headers())
        engine, ours = f"{stack.engine_url}/object_info", f"{stack.service_url}/api/options"
        for url in (engine, ours):
            seconds(session, url)
        for _ in range(rounds):
            rows["engine"].append(seconds(session, engine))
            time.sleep(1.5 * FRESH_SECONDS)
            rows["ours, expired"].append(seconds(session, ours))
            rows["ours, cached"].append(seconds(session, ours))
        stack.check()
    lines = [f"{'':18}{'median ms':>10}{'min':>8}{'max':>8}{'/ engine':>10}"]
    for name, taken in rows.items():
        ratio = statistics.median(own / engine_time for own, engine_time in zip(taken, rows["engine"], strict=True))
        about = f"{statistics.median(taken) * 1000:10.1f}{min(taken) * 1000:8.1f}{max(taken) * 1000:8.1f}"
        lines.append(f"{name:18}{about}{ratio:10.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
