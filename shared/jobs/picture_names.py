"""How a job's pictures are named. Pure: a picture's place follows from its name and back, with nothing to look up.

    20261122-143210-3f2a9c1e0b7d_00001_.png   in the folder   20261122/
    day      time   job          picture      of the engine's output folder

With several saving nodes, each has a number: 20261122-143210-3f2a9c1e0b7d-002_00001_.png is of the second.

A folder for each day keeps them small (ComfyUI lists the folder on each save). The job's id in the name makes the
prefix its own: an identical graph would be answered from ComfyUI's cache with an older job's file.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.engine.client import SavedImage

# The input by which a node is told under which names it saves.
PREFIX_INPUT = "filename_prefix"
NAME = re.compile(r"(?P<day>\d{8})-\d{6}-(?P<job>[0-9a-f]{12})(-(?P<node>\d{3}))?_(?P<count>\d{5})_\.png", re.ASCII)


def filename_prefix(job_id: str, now: datetime) -> str:
    """The SaveImage prefix for the pictures of a job (a UUID) that was made at `now`."""
    return f"{now:%Y%m%d}/{now:%Y%m%d-%H%M%S}-{job_id.replace('-', '')[:12]}"


def locate(name: str) -> SavedImage | None:
    """Where the picture of that name lies in the engine's output folder; None for what is no name of ours."""
    match = NAME.fullmatch(name)
    return SavedImage(filename=name, subfolder=match["day"], type="output") if match else None


def save_prefixes(graph: Mapping[str, Any]) -> list[str]:
    """The prefixes under which a graph saves its pictures."""
    return [node["inputs"]["filename_prefix"] for node in graph.values() if "filename_prefix" in node["inputs"]]


def picture_number(name: str) -> int:
    """Which of its job's pictures it is, counted from 1: by its saving node, and by what that node saved before."""
    match = NAME.fullmatch(name)
    return int(match["node"] or 1) + int(match["count"]) - 1 if match else 1


def picture_index(name: str) -> int:
    """Which of its saving node's pictures it is, counted from 0."""
    match = NAME.fullmatch(name)
    return int(match["count"]) - 1 if match else 0


def saving_node(graph: Mapping[str, Any], name: str) -> str | None:
    """The node of the job's graph that saved the picture of that name; None for what is no name of ours."""
    match = NAME.fullmatch(name)
    saving = [node for node, about in graph.items() if "filename_prefix" in about["inputs"]]
    number = int(match["node"] or 1) if match else 0
    return saving[number - 1] if 1 <= number <= len(saving) else None


def job_beginning(name: str) -> str | None:
    """What the id of the picture's job begins with; None for what is no name of ours."""
    match = NAME.fullmatch(name)
    return f"{match['job'][:8]}-{match['job'][8:]}" if match else None


def with_prefix(graph: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The same graph, saving its pictures under another prefix; several saving nodes each get a number added to it."""
    saving = [name for name, node in graph.items() if "filename_prefix" in node["inputs"]]
    prefixes = dict(zip(saving, job_prefixes(prefix, len(saving)), strict=True))
    return {
        name: {**node, "inputs": {**node["inputs"], "filename_prefix": prefixes[name]}} if name in prefixes else node
        for name, node in graph.items()
    }


def job_prefixes(prefix: str, count: int) -> list[str]:
    """A prefix for each of a graph's saving nodes."""
    return [prefix] if count == 1 else [f"{prefix}-{number:03}" for number in range(1, count + 1)]
