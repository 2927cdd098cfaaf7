"""Scores to combine and their weights, as they are written."""

import pytest

from reports.weights import told, weighted, weights_of


def test_a_name_alone_weighs_one_and_what_is_written_is_read_again() -> None:
    weights = weights_of(["zico", " synflow = 2.5 ", "my_score:spread=3", "zico=1"])
    assert weights == {"zico": 1.0, "synflow": 2.5, "my_score:spread": 3.0}
    written = [weighted(name, weight) for name, weight in weights.items()]
    assert written == ["zico", "synflow=2.5", "my_score:spread=3"]
    assert weights_of(written) == weights
    for weight in (1 / 3, 0.001, 1000.0, 12.5):
        assert weights_of([weighted("zico", weight)]) == {"zico": weight}


def test_for_people_a_weight_stands_before_the_label() -> None:
    assert told("synflow", 1) == "SynFlow"
    assert told("training_loss_decay", 3.0) == "3 x training loss decay"


@pytest.mark.parametrize(
    "text", ["0", "-1", "inf", "nan", "two", "", "1e-4", "1001", "1e308", "1_0", "\u0663"]
)
def test_a_weight_is_a_number_that_leaves_something_of_the_others(text: str) -> None:
    complaint = rf"the weight of zico must be a number from 0\.001 to 1,000, .* not '{text}'"
    with pytest.raises(ValueError, match=complaint):
        weights_of(["synflow", f"zico={text}"])


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'=3' weighs no score"):
        weights_of(["synflow", "=3"])


def test_two_weights_of_one_score_are_refused() -> None:
    with pytest.raises(ValueError, match="zico is to be combined with two weights, 1 and 2"):
        weights_of(["zico", "synflow", "zico=2"])
