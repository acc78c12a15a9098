"""Links, walks and run orders of graphs, malformed ones included."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.graph_walk import (
    Cycle,
    ancestors,
    chain,
    class_of,
    count_ancestors,
    end_nodes,
    inputs_of,
    is_link,
    linked_constant,
    links_of,
    run_order,
    source_of,
    sources,
    used_outputs,
    walk,
)
from tests.imported_graphs import default_graph


def linked(**feeds: str) -> dict[str, Any]:
    """A graph of one-letter nodes, each with the nodes that feed it: `linked(c="ab", a="", b="")`."""
    return {
        name: {"class_type": "Any", "inputs": {f"in_{source}": [source, 0] for source in letters}}
        for name, letters in feeds.items()
    }


MALFORMED: dict[str, Any] = {
    "none": None,
    "text": "x",
    "no_inputs": {"class_type": "A"},
    "bad_inputs": {"class_type": "A", "inputs": [1]},
    "lost": {"class_type": "A", "inputs": {"a": ["missing", 0], "b": ["none", 0], "c": ["x"], "d": [["none"], 0]}},
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(["a", 0], True), (["a"], False), (["a", "b"], False), ([1, 0], False), (["a", 0, 0], False), ("a", False)],
)
def test_a_link_is_a_node_and_the_number_of_an_output(value: Any, expected: bool) -> None:
    assert is_link(value) is expected


def test_malformed_nodes_have_no_inputs_and_links_to_nothing_are_ignored() -> None:
    assert [class_of(node) for node in MALFORMED.values()] == [None, None, "A", "A", "A"]
    assert [dict(inputs_of(node)) for node in MALFORMED.values()][:4] == [{}, {}, {}, {}]
    assert list(links_of(MALFORMED, "lost")) == [("b", ["none", 0])]
    assert (source_of(MALFORMED, "lost", "a"), source_of(MALFORMED, "lost", "b")) == (None, "none")
    assert (sources(MALFORMED, "missing"), list(walk(MALFORMED, ["missing"]))) == ([], [])
    assert list(run_order(MALFORMED)) == list(MALFORMED)


def test_a_walk_visits_the_nearest_first_and_each_node_once() -> None:
    graph = linked(e="cd", d="a", c="b", b="a", a="")
    assert list(walk(graph, ["e"])) == ["e", "c", "d", "b", "a"]
    assert list(walk(graph, ["e"], follows=lambda key: key != "in_c")) == ["e", "d", "a"]
    assert list(walk(graph, ["e"], ("in_d", "in_a"))) == ["e", "d", "a"]
    assert ancestors(graph, "c") == {"a", "b"}


def test_used_outputs_and_end_nodes() -> None:
    graph = default_graph()
    assert used_outputs(graph) >= {("ckpt", 0), ("ckpt", 1), ("ckpt", 2), ("decode", 0)}
    assert ("save", 0) not in used_outputs(graph)
    assert end_nodes(graph) == ["save"]
    assert end_nodes(linked(a="a", b="")) == ["a", "b"]


def test_a_chain_follows_the_first_input_that_is_linked() -> None:
    graph = linked(d="bc", c="a", b="a", a="")
    assert list(chain(graph, "d", ("in_c", "in_b", "in_a"))) == ["c", "a"]
    assert list(chain(graph, "d", ("in_x", "in_b"))) == ["b"]
    assert list(chain(linked(a="b", b="a"), "a", ("in_a", "in_b"))) == ["b"]


@pytest.mark.parametrize(
    ("inputs", "key"),
    [
        ({"value": 3}, "value"),
        ({"seed": 3, "control_after_generate": "fixed"}, "seed"),
        ({"value": 3, "scale": 2}, None),
        ({"a": 3}, None),
        ({"value": ["other", 0]}, None),
        ({}, None),
    ],
)
def test_a_constant_is_the_only_input_of_its_node(inputs: dict[str, Any], key: str | None) -> None:
    graph = {"n": {"class_type": "Any", "inputs": inputs}, "other": {"class_type": "Any", "inputs": {}}}
    assert linked_constant(graph, ["n", 0]) == (None if key is None else ("n", key))
    assert linked_constant(graph, 3) is None
    assert linked_constant(graph, ["missing", 0]) is None


def test_nodes_run_after_their_sources() -> None:
    assert run_order(linked(d="cb", c="a", b="", a="")) == {"a": 1, "c": 2, "b": 1, "d": 3}


@pytest.mark.parametrize(
    ("graph", "nodes"),
    [
        (linked(a="a"), ["a", "a"]),
        (linked(c="b", b="a", a="b"), ["b", "a", "b"]),
    ],
)
def test_a_cycle_is_reported_with_its_nodes(graph: Mapping[str, Any], nodes: list[str]) -> None:
    with pytest.raises(Cycle) as caught:
        run_order(graph)
    assert caught.value.nodes == nodes


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), max_size=12))
def test_the_run_order_respects_every_link(feeds: list[list[int]]) -> None:
    graph = {
        str(name): {"class_type": "Any", "inputs": {str(i): [str(source), 0] for i, source in enumerate(row)}}
        for name, row in enumerate(feeds)
    }
    cycle, order = None, {}
    try:
        order = run_order(graph)
    except Cycle as error:
        cycle = error.nodes
    if cycle is not None:
        assert all(before in sources(graph, name) for name, before in pairwise(cycle))
        assert cycle[0] == cycle[-1]
        return
    finished: set[str] = set()
    for name, depth in order.items():
        assert set(sources(graph, name)) <= finished
        assert depth == 1 + max((order[source] for source in sources(graph, name)), default=0)
        finished.add(name)
    assert finished == set(graph)
    assert count_ancestors(graph) == {name: len(ancestors(graph, name)) for name in graph}


def test_long_chains_and_dense_graphs_need_no_recursion() -> None:
    long = {str(n): {"class_type": "Any", "inputs": {"a": [str(n - 1), 0]} if n else {}} for n in range(20_000)}
    assert run_order(dict(reversed(long.items())))["19999"] == 20_000
    assert len(ancestors(long, "19999")) == 19_999
    dense = {
        str(n): {"class_type": "Any", "inputs": {str(i): [str(i), 0] for i in range(n)}} for n in reversed(range(300))
    }
    assert run_order(dense)["299"] == 300
