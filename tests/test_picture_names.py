"""The file names of pictures."""

from shared.jobs.picture_names import save_prefixes, with_prefix


def test_with_prefix_replaces_the_prefix_of_a_copy() -> None:
    graph = {
        "Save": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a/b", "images": ["Decode", 0]}},
        "Decode": {"class_type": "VAEDecode", "inputs": {}},
    }
    assert save_prefixes(graph) == ["a/b"]
    moved = with_prefix(graph, "c/d")
    assert save_prefixes(moved) == ["c/d"]
    assert moved["Save"]["inputs"]["images"] == ["Decode", 0]
    assert moved["Decode"] == graph["Decode"]
    assert save_prefixes(graph) == ["a/b"]
