"""Names that users type."""

import pytest

from atom_nas.names import choose


def test_a_known_name_is_returned() -> None:
    assert choose("space", "convnet", ["convnet", "cells"]) == "convnet"


def test_an_unknown_name_shows_the_nearest_and_all() -> None:
    message = r"unknown space 'convnt': did you mean 'convnet'\? allowed: convnet, cells"
    with pytest.raises(ValueError, match=message):
        choose("space", "convnt", iter(["convnet", "cells"]))


def test_a_name_like_no_other_shows_no_guess() -> None:
    with pytest.raises(ValueError, match="unknown space 'zzz': allowed: convnet"):
        choose("space", "zzz", ["convnet"])


def test_where_there_are_no_names_that_is_said() -> None:
    with pytest.raises(ValueError, match="unknown option 'eta': there are none"):
        choose("option", "eta", [])
