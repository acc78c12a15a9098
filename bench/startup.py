"""Measures the start time of everything and the memory of the services: `python -m bench.startup [ROUNDS]`.

Each round starts the bare engine (ComfyUI with our arguments), the whole stack (`up`, already set up), and each service
alone, and measures the time until it answers. Compare the ratio up / engine: on a machine that is set up, `up` should
take no longer than the engine itself. Run it in the project's environment, with nothing else running.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import requests

from bench.stack import temporary_settings
from shared.engine.process import engine_command
from shared.settings import PROJECT_DIR


def seconds_until(answers: Callable[[], bool], begun: float) -> float:
    """Return the seconds from `begun` until `answers` returns true."""
    while not answers():
        if time.perf_counter() - begun > 300:
            raise TimeoutError("no answer in 300 s")
        time.sleep(0.02)
    return time.perf_counter() - begun


def get(url: str) -> bool:
    """Whether the URL responds successfully."""
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def measure_start(command: list[str], environ: dict[str, str], answers: Callable[[], bool]) -> tuple[float, float]:
    """Start a command, and stop it once it answers; returns the seconds until then and its memory in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=PROJECT_DIR, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return seconds_until(answers, begun), psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.terminate()
        process.wait(timeout=30)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    rounds = parser.parse_args().rounds
    with temporary_settings() as (settings, comfyui_dir):
        environ = dict(os.environ)
        python = sys.executable
        bare = engine_command(settings, comfyui_dir, settings.data_dir, cpu=True)
        engine_url = f"{settings.engine_address}/system_stats"
        txt2img_url, img2img_url, models_url = (
            f"http://127.0.0.1:{port}{path}"
            for port, path in (
                (settings.txt2img_port, "/health"),
                (settings.img2img_port, "/health"),
                (settings.control_port, "/api/models"),
            )
        )
        whole = [python, "dream_layer.py", "up", "--no-install"]
        measure_start(whole, environ, lambda: get(models_url))  # creates the starter model and compiled modules
        rows: dict[str, list[tuple[float, float]]] = {"engine": [], "up": [], "txt2img": [], "img2img": []}
        for _ in range(rounds):
            rows["engine"].append(measure_start([python, *bare], environ, lambda: get(engine_url)))
            rows["up"].append(
                measure_start(whole, environ, lambda: get(models_url) and get(txt2img_url) and get(img2img_url))
            )
            rows["txt2img"].append(measure_start([python, "txt2img_server.py"], environ, lambda: get(txt2img_url)))
            rows["img2img"].append(measure_start([python, "img2img_server.py"], environ, lambda: get(img2img_url)))
    lines = [f"{'':10}{'median s':>10}{'min':>8}{'max':>8}{'MB':>8}"]
    for name, taken in rows.items():
        times = [seconds for seconds, _ in taken]
        memory = statistics.median(megabytes for _, megabytes in taken)
        lines.append(f"{name:10}{statistics.median(times):10.2f}{min(times):8.2f}{max(times):8.2f}{memory:8.1f}")
    ratios = [up[0] / engine[0] for up, engine in zip(rows["up"], rows["engine"], strict=True)]
    lines.append(f"up / engine, pair by pair: median {statistics.median(ratios):.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
