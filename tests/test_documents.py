"""The links between the documents, and the commands that they show."""

import re
from pathlib import Path
from typing import Final

import pytest

from gateway.arguments import build_parser

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/**/*.md")]
COMMANDS: Final = [
    line.split("#")[0].split()[1:]
    for block in re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("pulsegate ")
]


def anchors(document: Path) -> set[str]:
    """The fragments that name the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_of_the_project(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:")):
            continue
        path, _, fragment = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_line_accepts_the_commands_of_the_readme(command: list[str]) -> None:
    assert build_parser().parse_args(command)
