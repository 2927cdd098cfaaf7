"""What `list` shows of settings."""

from collections import Counter
from dataclasses import fields

from atom_nas.commands.catalogue import TOPICS, narrowed
from distill.methods import METHODS
from distill.methods import load as load_method


def test_what_methods_have_alike_is_in_one_table() -> None:
    sheets = TOPICS["settings"]()
    rows = [
        tuple(row) for sheet in sheets for row in sheet.rows if sheet.title.startswith("distill --method")
    ]
    assert max(Counter(rows).values()) == 1
    for name in METHODS:
        mine = [
            sheet
            for sheet in sheets
            if sheet.title.startswith("distill --method") and name in _of(sheet.title)
        ]
        named = [row[0] for sheet in mine for row in sheet.rows]
        assert sorted(named) == sorted(field.name for field in fields(load_method(name).Config))


def test_a_setting_is_found_with_all_that_take_it() -> None:
    found = {tuple(_of(sheet.title)): sheet.rows for sheet in narrowed(TOPICS["settings"](), "factor")}
    assert set(found) == {("atom", "datadam", "dm", "dc", "dsa", "cafe"), ("random",)}
    assert all([row[:3] for row in rows] == [["factor", "whole number", "1"]] for rows in found.values())


def _of(title: str) -> list[str]:
    """The methods in a title."""
    return title.removeprefix("distill --method ").partition(" (")[0].split(", ")
