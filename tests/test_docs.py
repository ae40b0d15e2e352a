"""The documents: links lead somewhere, and tables of contents are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.daemon import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "rust" / "ARCHITECTURE.md"])


def text_of(path: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings(path: Path) -> dict[str, str]:
    """The titles below the first one, by their anchors, as GitHub makes them."""
    titles = re.findall(r"^##+ (.+)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"): title for title in titles}


def links_in(text: str) -> list[str]:
    """Where a text leads to, but for the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in links_in(text_of(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_tables_of_contents_are_complete() -> None:
    found = 0
    for path in DOCUMENTS:
        before = re.split(r"^## ", text_of(path), maxsplit=1, flags=re.MULTILINE)[0]
        listed = re.search(r"^- .*", before, re.MULTILINE | re.DOTALL)
        contents = {link[1:] for link in links_in(listed[0]) if link.startswith("#")} if listed else set()
        if len(contents) < 3:
            continue
        found += 1
        sections = set(re.findall(r"^## (.+)$", text_of(path), re.MULTILINE))
        missing = {anchor for anchor, title in headings(path).items() if title in sections} - contents
        assert not missing, path
    assert found >= 3
