"""The file names of pictures. Pure: the folder and the job of a picture follow from its name, without a lookup.

    20261122-143210-3f2a9c1e0b7d_00001_.png   in the folder   20261122/
    date     time   job          count        of the engine's output folder

If a graph has several saving nodes, each has a number: 20261122-143210-3f2a9c1e0b7d-002_00001_.png is by the second.

A folder per day stays small; ComfyUI lists the folder for each picture that it saves. The job's id makes the prefix
unique; for an identical graph, ComfyUI would answer with the cached file of an earlier job.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.engine.client import SavedImage

# The input of a saving node that holds its file name prefix.
PREFIX_INPUT = "filename_prefix"
NAME = re.compile(r"(?P<day>\d{8})-\d{6}-(?P<job>[0-9a-f]{12})(-(?P<node>\d{3}))?_(?P<count>\d{5})_\.png", re.ASCII)


def filename_prefix(job_id: str, now: datetime) -> str:
    """The SaveImage prefix for the pictures of a job (a UUID) that is created at `now`."""
    return f"{now:%Y%m%d}/{now:%Y%m%d-%H%M%S}-{job_id.replace('-', '')[:12]}"


def locate(name: str) -> SavedImage | None:
    """The picture with this file name, in the engine's output folder; None if it is not a name of ours."""
    match = NAME.fullmatch(name)
    return SavedImage(filename=name, subfolder=match["day"], type="output") if match else None


def save_prefixes(graph: Mapping[str, Any]) -> list[str]:
    """The prefixes under which a graph saves its pictures."""
    return [graph[node]["inputs"][PREFIX_INPUT] for node in _saving_nodes(graph)]


def picture_number(name: str) -> int:
    """The number of a picture among those of its job, from 1: by saving node, then by its count."""
    match = NAME.fullmatch(name)
    return int(match["node"] or 1) + int(match["count"]) - 1 if match else 1


def picture_index(name: str) -> int:
    """The index of a picture among those of its saving node, from 0."""
    match = NAME.fullmatch(name)
    return int(match["count"]) - 1 if match else 0


def saving_node(graph: Mapping[str, Any], name: str) -> str | None:
    """The node of the job's graph that saved the picture with this name; None if it is not a name of ours."""
    match = NAME.fullmatch(name)
    nodes = _saving_nodes(graph)
    number = int(match["node"] or 1) if match else 0
    return nodes[number - 1] if 1 <= number <= len(nodes) else None


def job_id_prefix(name: str) -> str | None:
    """The first 12 digits of the id of the picture's job, as they begin its UUID; None if it is not a name of ours."""
    match = NAME.fullmatch(name)
    return f"{match['job'][:8]}-{match['job'][8:]}" if match else None


def with_prefix(graph: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """A copy of the graph that saves under `prefix`; with several saving nodes, each under a numbered one."""
    nodes = _saving_nodes(graph)
    prefixes = dict(zip(nodes, node_prefixes(prefix, len(nodes)), strict=True))
    return {
        name: {**node, "inputs": {**node["inputs"], PREFIX_INPUT: prefixes[name]}} if name in prefixes else node
        for name, node in graph.items()
    }


def node_prefixes(prefix: str, count: int) -> list[str]:
    """The prefixes of a graph's `count` saving nodes, in order."""
    return [prefix] if count == 1 else [f"{prefix}-{number:03}" for number in range(1, count + 1)]


def _saving_nodes(graph: Mapping[str, Any]) -> list[str]:
    return [name for name, node in graph.items() if PREFIX_INPUT in node["inputs"]]
