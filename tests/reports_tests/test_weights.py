"""Scores to combine and their weights, as they are written."""

import pytest

from reports.weights import told, weighted, weights_of


def test_a_name_alone_weighs_one_and_what_is_written_is_read_again() -> None:
    weights = weights_of(["zico", " synflow = 2.5 ", "my_score:spread=3", "zico=1"])
    assert weights == {"zico": 1.0, "synflow": 2.5, "my_score:spread": 3.0}
    written = [weighted(name, weight) for name, weight in weights.items()]
    assert written == ["zico", "synflow=2.5", "my_score:spread=3"]
    assert weights_of(written) == weights
    third = 1 / 3
    assert weights_of([weighted("zico", third)]) == {"zico": third}


def test_for_people_a_weight_stands_before_the_label() -> None:
    assert told("synflow", 1) == "SynFlow"
    assert told("training_loss_decay", 3.0) == "3 x training loss decay"


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "two", ""])
def test_a_weight_is_a_number_above_zero(text: str) -> None:
    with pytest.raises(ValueError, match=rf"the weight of zico must be a number above 0, .* not '{text}'"):
        weights_of(["synflow", f"zico={text}"])


def test_two_weights_of_one_score_are_refused() -> None:
    with pytest.raises(ValueError, match="zico is to be combined with two weights, 1 and 2"):
        weights_of(["zico", "synflow", "zico=2"])
