"""What the documents point at is there: options of commands with values of their types, files, headings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from atom_nas.cli import app
from atom_nas.commands.guard import fill_optional, spread_settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command's document and words; with parts left out, `...`, `[--zca]` or `--ipc N`, it is none."""
    for document in DOCUMENTS:
        for block in _BLOCK.findall(document.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;|\bdo\b", line):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["atom-nas"] and not re.search(r"\.\.\.|\[| [A-Z]+\b", " ".join(words)):
                        yield document.name, words[1:]


FOUND = list(commands())


@pytest.mark.parametrize(("document", "words"), FOUND, ids=[" ".join(words)[:60] for _, words in FOUND])
def test_documented_commands_can_be_parsed(document: str, words: list[str]) -> None:
    name, *arguments = fill_optional(list(spread_settings(words)))
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.make_context(name, arguments).command.name == name, document


def test_commands_are_found() -> None:
    assert {words[0] for _, words in FOUND} >= {"distill", "evaluate", "label", "merge", "search", "report"}
    assert len(FOUND) > 30


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives the headings of a document."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = (document.parent / name).resolve() if name else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
