"""What a resumed command leaves out is as the run has it."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import atom_nas
from atom_nas.resuming import kept, search_settings
from atom_nas.run_folder import read_record
from atom_nas.search import run_search
from atom_nas.settings import SearchSettings

TABLE = "published.csv"


@pytest.fixture
def begun(tmp_path: Path) -> SearchSettings:
    """The settings of a run whose record is there."""
    settings = SearchSettings(
        synthetic=tmp_path / "set",
        out=tmp_path / "run",
        samples=7,
        strategy="evolution",
        strategy_options={"batch": 2},
        space_options={"width": [32]},
        architectures=Path("list.csv"),
        reference=TABLE,
        training={"learning_rate": 0.1},
        estimators=("snip",),
        confirm=2,
        workers=3,
        seed=5,
        command="atom-nas search set --samples 7 --out run",
        recipe=False,
    )
    write(settings, {"settings": kept(settings), "command": settings.command})
    return settings


def write(settings: SearchSettings, record: dict[str, Any]) -> None:
    settings.out.mkdir(exist_ok=True)
    whole = json.dumps({"format_version": 1, **record}, allow_nan=False)
    (settings.out / "run.json").write_text(whole)


def resumed(begun: SearchSettings, *said: str, **values: Any) -> SearchSettings:
    """As the command line asks for it: all options, at their defaults but for what was said."""
    defaults: dict[str, Any] = {"samples": 48, "reference": "real", "seed": 0, "estimators": ("",)}
    always = {"synthetic": begun.synthetic, "out": begun.out, "resume": True, "command": "again"}
    return search_settings({"synthetic", "out", *said}, **{**defaults, **always, **values})


def test_everything_that_was_not_said_is_restored(begun: SearchSettings) -> None:
    found = resumed(begun)
    expected = replace(
        begun,
        architectures=Path("list.csv").absolute(),
        reference=str(Path(TABLE).absolute()),
        workers=None,
        resume=True,
        command=f"{begun.command} && again --resume",
    )
    assert found == expected


def test_what_is_said_wins(begun: SearchSettings) -> None:
    found = resumed(begun, "samples", "training", "reference", samples=48, training={}, reference="none")
    assert (found.samples, found.training, found.reference) == (48, {"learning_rate": 0.1}, "none")
    assert (found.seed, found.confirm) == (5, 2)
    assert resumed(begun, "confirm_epochs", confirm_epochs=9).confirm_epochs == 9


def test_trainings_go_on_as_they_were_when_defaults_are_others_by_now(begun: SearchSettings) -> None:
    record = read_record(begun.out)
    before = {"batch_size": 256, "learning_rate": 0.01, "schedule": "step"}
    for stage in ("reference", "confirm"):
        record[stage] = {"settings": {"training": {**before, "epochs": 30, "momentum": 0.9}}}
    write(begun, record)
    found = resumed(begun)
    assert (found.reference_training, found.confirm_training) == (before, before)
    said = resumed(begun, "confirm_training", confirm_training={"learning_rate": 0.05})
    assert said.confirm_training == {**before, "learning_rate": 0.05}
    for damaged in (None, [], {"settings": []}, {"settings": {"training": 5}}):
        write(begun, {**record, "reference": damaged})
        assert resumed(begun).reference_training == {}


def test_the_column_of_a_table_is_not_that_of_another_reference(begun: SearchSettings) -> None:
    write(begun, {"settings": kept(replace(begun, reference_column="late"))})
    assert resumed(begun).reference_column == "late"
    assert resumed(begun, "reference", reference="none", reference_column="score").reference_column == "score"
    spelt = str(Path(TABLE).parent / "." / "there" / ".." / Path(TABLE).name)
    for same in (TABLE, spelt):
        assert (
            resumed(begun, "reference", reference=same, reference_column="score").reference_column == "late"
        )
    with pytest.warns(UserWarning, match="of which the column 'late' was taken: of this one it is 'score'"):
        other = resumed(begun, "reference", reference="other.csv", reference_column="score")
    assert other.reference_column == "score"


def test_commands_are_kept_in_order_and_once(begun: SearchSettings) -> None:
    assert resumed(begun, command=begun.command).command == begun.command
    later = replace(begun, command=resumed(begun).command)
    write(begun, {"settings": kept(begun), "command": later.command})
    assert resumed(begun).command == later.command
    assert resumed(begun, command="other").command == f"{later.command} && other --resume"


@pytest.mark.parametrize("record", [{}, {"settings": None}, {"settings": [1], "command": 3}], ids=str)
def test_runs_that_kept_no_settings_go_on_by_what_is_said(
    begun: SearchSettings, record: dict[str, Any]
) -> None:
    write(begun, record)
    found = resumed(begun, "samples", samples=9)
    assert (found.samples, found.reference, found.command) == (9, "real", "again")


def test_unknown_settings_are_left_out_and_wrong_ones_refused(begun: SearchSettings) -> None:
    write(begun, {"settings": {"of_a_later_version": 1, "samples": 3, "out": "elsewhere"}})
    found = resumed(begun)
    assert (found.samples, found.out) == (3, begun.out)
    write(begun, {"settings": {"samples": "many"}})
    with pytest.raises(ValueError, match="samples"):
        resumed(begun)


def test_a_new_search_restores_nothing(begun: SearchSettings) -> None:
    assert resumed(begun, resume=False).samples == 48


@pytest.mark.parametrize("name", ["confirm_epochs", "confirm_images"])
def test_how_to_confirm_without_what_to_confirm_is_refused(tmp_path: Path, name: str) -> None:
    always: dict[str, Any] = {"synthetic": tmp_path, "out": tmp_path, "resume": False, "command": ""}
    with pytest.raises(ValueError, match="add --confirm K"):
        search_settings({name}, **always, **{name: 30})


@pytest.mark.parametrize("name", ["reference_samples", "reference_images", "reference_epochs"])
def test_no_reference_is_not_told_how_to_train(tmp_path: Path, name: str) -> None:
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(ValueError, match=f"{option} says how the reference is trained, and --reference none"):
        search_settings({name}, synthetic=tmp_path, out=tmp_path, resume=False, command="", reference="none",
                        **{name: 3})  # fmt: skip
    with pytest.raises(ValueError, match="--set-reference says how"):
        search_settings({"reference_training"}, synthetic=tmp_path, out=tmp_path, resume=False, command="",
                        reference="table.csv", reference_training={"epochs": 3})  # fmt: skip


def test_minibatches_of_no_estimator_are_refused(tmp_path: Path) -> None:
    given: dict[str, Any] = {"synthetic": tmp_path, "out": tmp_path, "resume": False, "command": ""}
    given |= {"training_free": {"images": "real"}, "space": "hub:darts"}
    for none in ((), ("early-stopping",)):
        with pytest.raises(ValueError, match=r"--set-training-free says what .* --estimators synflow,naswot"):
            search_settings({"training_free", "estimators"}, **given, estimators=none)
    found = search_settings({"training_free", "estimators"}, **given, estimators=("zico",))
    assert found.training_free == {"images": "real"}


def test_from_python_a_run_goes_on_as_it_was(begun: SearchSettings) -> None:
    found = atom_nas.resumed(str(begun.out), confirm=3, training={"momentum": 0.8})
    assert (found.synthetic, found.samples, found.seed) == (begun.synthetic, 7, 5)
    assert (found.confirm, found.resume, found.command) == (3, True, begun.command)
    assert found.training == {"learning_rate": 0.1, "momentum": 0.8}
    assert atom_nas.resumed(begun.out, estimators="zico").estimators == ("zico",)
    write(begun, {"settings": kept(replace(begun, reference_column="late"))})
    with pytest.warns(UserWarning, match="of this one it is 'score', unless"):
        assert atom_nas.resumed(begun.out, reference="other.csv").reference_column == "score"
    with pytest.raises(ValueError, match="unknown setting 'confrm': did you mean 'confirm'"):
        atom_nas.resumed(begun.out, confrm=3)
    with pytest.raises(ValueError, match="is not a run folder"):
        atom_nas.resumed(begun.out / "absent")


@pytest.mark.usefixtures("ran")
def test_to_go_on_with_what_rounds_otherwise_is_told_and_kept(quick: SearchSettings) -> None:
    settings = replace(quick, samples=2, epochs=1, reference="none")
    run_search(settings)
    file = settings.out / "run.json"
    record = read_record(settings.out)
    record["environment"] |= {"torch": "0.0.1\x1b[2J", "cores": "99"}
    file.write_text(json.dumps(record))
    again = replace(settings, resume=True)
    with pytest.warns(UserWarning, match=r"was begun with torch 0\.0\.1 \[2J \(.* now\): scores may differ"):
        run_search(again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_search(again)
    assert read_record(settings.out)["earlier_environments"] == [record["environment"]]
