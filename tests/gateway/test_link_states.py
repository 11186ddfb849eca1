"""The table of link states: the picture in the docs is the table, and every state can be reached and left."""

from pathlib import Path
from typing import get_args

from gateway.link_states import TRANSITIONS, LinkState, draw_transitions

PAGE = Path(__file__).parents[2] / "docs" / "connections.md"


def test_the_picture_in_the_docs_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{draw_transitions()}\n```" in PAGE.read_text(), "copy the output of draw_transitions() to the page"


def test_every_state_is_reached_from_the_start_and_ends_in_a_new_search() -> None:
    reached, before = {"stopped"}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {after for (state, event), after in TRANSITIONS.items() if state in reached and event != "stop"}
    assert reached == set(get_args(LinkState))
    for state in get_args(LinkState):
        assert TRANSITIONS[state, "stop"] == "stopped"
        assert {event for (before_state, event) in TRANSITIONS if before_state == state} - {"stop"}, f"{state} has no way out"
