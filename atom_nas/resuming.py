"""What a search was asked to do, kept in its record: a command that goes on with it says only what is new."""

import shlex
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atom_nas.config import construct, given
from atom_nas.estimators import TRAINED_BESIDE, score_of_own
from atom_nas.run_folder import RECORD, read_record
from reports.scores import MEAN_OF_RANKS
from reports.weights import weights_of
from search_spaces import is_own

if TYPE_CHECKING:
    from atom_nas.settings import SearchSettings

KEPT = "settings"
"""The entry of the record."""
_OF_A_SESSION = ("out", "resume", "command", "workers", "recipe")
_THEN = " && "
_GROUPS = {"training", "proxy_space", "training_free"}
"""Of these what is said is added to what the run has, setting by setting, as to a recipe."""
_OF_CONFIRMATION = {"confirm_images", "confirm_epochs", "confirm_training"}
_OF_REFERENCE = {"reference_samples", "reference_images", "reference_epochs", "reference_training"}


def kept(settings: "SearchSettings") -> dict[str, Any]:
    """The settings as JSON values, with paths made absolute, less those that concern one session alone."""
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    if settings.reference_kind == "table":
        values["reference"] = Path(settings.reference)
    return {name: _plain(value) for name, value in values.items() if name not in _OF_A_SESSION}


def search_settings(said: Collection[str], /, **values: Any) -> "SearchSettings":
    """The settings of a search from fields by name. What was not said is as the space's recipe has it; where
    the search resumes, as the run has it.

    Args:
        said: the names of the fields that the user gave.
        values: of the fields; None stands for the default.
    Raises:
        ValueError: a setting is wrong, or the record of the run is damaged.
    """
    from atom_nas.settings import BY_RECIPES, SearchSettings

    record = _record(values["out"]) if values["resume"] else {}
    before = record.get(KEPT)
    if isinstance(before, dict):
        # What a recipe did not bring yet when the run began, it does not bring to it now.
        whole = {**_restored(before, values, said), "recipe": False}
    else:
        before = {}
        # The command has values where nothing was said, too; groups of settings have in them what was said.
        unsaid = BY_RECIPES - _GROUPS - set(said)
        whole = {name: value for name, value in values.items() if name not in unsaid}
    for group, stage in (("reference_training", "reference"), ("confirm_training", "confirm")):
        if group in before:
            whole[group] = {**_trained_by(record, stage), **(whole.get(group) or {})}
    whole |= _went_on_by(record, whole, said)
    if record and "unwhiten" not in {*said, *before}:
        whole["unwhiten"] = False  # as all searches before there was the choice
    whole["command"] = _continued(record.get("command"), values["command"])
    settings = construct(SearchSettings, given(**whole))
    _require_of_use(settings, said)
    _tell_of_code(record, settings, said)
    return settings


def _restored(before: Mapping[str, Any], values: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """What the run has where nothing was said, and the values given elsewhere."""
    from atom_nas.settings import SearchSettings

    unsaid = {each.name for each in fields(SearchSettings)} - {*_OF_A_SESSION, *said}
    if "space" in unsaid:
        _require_named(before.get("space"), values["out"])
    restored = {name: before[name] for name in unsaid & before.keys()}
    if "reference" in said and not _same_file(str(values["reference"]), before.get("reference")):
        _leave_column(restored, values)
    theirs = restored.get("estimators")
    if isinstance(theirs, list):
        # Code runs only if the command names it; what it has scored stays in the run.
        _require_code(theirs, restored.get("combine"), values["out"])
        restored["estimators"] = [name for name in theirs if not (isinstance(name, str) and is_own(name))]
    groups = {name: _merged(before.get(name), values.get(name)) for name in _GROUPS & set(said)}
    return {**values, **groups, **restored}


def _trained_by(record: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """What a run's reference or final models were trained by where defaults are others by now."""
    from atom_nas.estimators.real import RECIPE

    found: Any = record
    for part in (stage, "settings", "training"):
        found = found.get(part) if isinstance(found, dict) else None
    return {name: found[name] for name in RECIPE if name in found} if isinstance(found, dict) else {}


def _went_on_by(record: Mapping[str, Any], whole: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """The score by which a run's architectures go on, and what it is made of, where trainings are stopped
    early: once it was never a mean of ranks, whatever the settings said, and the same command goes on so."""
    strategy = record.get("strategy")
    strategy = strategy if isinstance(strategy, dict) else {}
    found: dict[str, Any] = {}
    criterion, parts = strategy.get("criterion"), strategy.get("combined")
    if isinstance(criterion, str) and "score" not in said:
        found["score"] = criterion
    elif isinstance(criterion, str) and criterion != MEAN_OF_RANKS == whole.get("score"):
        found["score"] = criterion
        warnings.warn(f"this run began by letting go on by {criterion}, and so it goes on", stacklevel=3)
    if isinstance(parts, list) and "combine" not in said:
        found["combine"] = tuple(map(str, parts))
    return found


def _leave_column(restored: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Restore no name of a column, which was of another table than the reference of now."""
    from atom_nas.settings import SearchSettings

    column = restored.pop("reference_column", None)
    now = values.get("reference_column") or SearchSettings.reference_column
    if column not in (None, now) and values["reference"] not in ("real", "none"):
        warnings.warn(
            f"the reference is another than the run's, of which the column {column!r} was taken: of this "
            f"one it is {now!r}, unless --reference-column names another",
            stacklevel=2,
        )


def _require_of_use(settings: "SearchSettings", said: Collection[str]) -> None:
    """Refuse what was said of a stage that the search does not have."""
    if settings.confirm is None and _OF_CONFIRMATION & set(said):
        raise ValueError(
            "--confirm-images, --confirm-epochs and --set-confirm say how to confirm: add --confirm K"
        )
    if settings.reference_kind != "real" and (unused := _OF_REFERENCE & set(said)):
        option = "--set-reference" if "reference_training" in unused else f"--{min(unused).replace('_', '-')}"
        raise ValueError(
            f"{option} says how the reference is trained, and --reference {settings.reference} trains none: "
            "leave one of them out"
        )
    if (
        settings.training_free
        and "training_free" in said
        and not {*settings.estimators}.difference(TRAINED_BESIDE)
    ):
        raise ValueError(
            "--set-training-free says what training-free estimators look at: name some by --estimators, e.g. "
            "--estimators synflow,naswot"
        )


def resumed(out: Path | str, **changes: Any) -> "SearchSettings":
    """The settings of the search in a run folder, to go on with it as the command does.

    Args:
        changes: fields of `SearchSettings` that are to be other than they were, e.g. confirm=3; code of the
            user's own (space, estimators) has to be named again.
    Raises:
        ValueError: there is no run, its record is damaged, or a setting is wrong.
    """
    if "recipe" in changes:
        raise ValueError("a run that goes on keeps its settings, whatever the recipe says: leave out recipe")
    read_record(Path(out))
    return search_settings(set(changes), **{"command": "", **changes, "out": Path(out), "resume": True})


def how_to_confirm(
    synthetic: Path | str, out: Path | str, space: Any = "", estimators: Sequence[Any] = ()
) -> str:
    """The command that trains the best of a run that is there; with what its record calls space and
    estimators, where those are the user's code, which only a command names."""
    own = ["--space", space] if isinstance(space, str) and is_own(space) else []
    if any(isinstance(name, str) and is_own(name) for name in estimators):
        own += ["--estimators", ",".join(map(str, estimators))]
    words = ["atom-nas", "search", str(synthetic), "--out", str(out), *own, "--resume", "--confirm", "3"]
    return shlex.join(words)


def _merged(before: Any, said: Any) -> Any:
    both = isinstance(before, dict) and isinstance(said, Mapping)
    return {**before, **said} if both else said


def _tell_of_code(record: Mapping[str, Any], settings: "SearchSettings", said: Collection[str]) -> None:
    """Warn where architectures that are new will have no score of the user's own that others have."""
    scored = record.get("estimators")
    none_new = record.get("complete") and not {"samples", "architectures"} & set(said)
    if none_new or not isinstance(scored, dict):
        return
    named = {score_of_own(name) for name in settings.estimators}
    for name in (name for name, of in scored.items() if isinstance(of, dict) and "code" in of):
        if name not in named:
            warnings.warn(
                f"{name} is an estimator of your own: what is new here is not scored by it, unless its code "
                f"is named (--estimators FILE.py:{name})",
                stacklevel=2,
            )


def _require_named(space: Any, out: Path) -> None:
    """A space of the user's own is code: it comes from the command, never from a folder."""
    if isinstance(space, str) and is_own(space):
        raise ValueError(
            f"{out} was searched in a space of your own, whose code runs only if you name it: add "
            f"--space {shlex.quote(space)}"
        )


def _require_code(estimators: list[Any], combined: Any, out: Path) -> None:
    """A score of the user's own that a run ranks by is measured by code: the command has to name it."""
    parts = weights_of(map(str, combined)) if isinstance(combined, list) else {}
    for name in estimators:
        if isinstance(name, str) and is_own(name) and score_of_own(name) in parts:
            raise ValueError(
                f"{out} ranks by {score_of_own(name)} too, an estimator of your own, whose code runs only if "
                f"you name it: add --estimators {shlex.quote(name)}"
            )


def _record(out: Path) -> dict[str, Any]:
    return read_record(out) if (out / RECORD).is_file() else {}


def _continued(earlier: Any, command: str) -> str:
    """The command line for the record: what was typed, after what the run began with if that is another."""
    if not isinstance(earlier, str) or not earlier:
        return command
    again = f"{command} --resume"
    commands = earlier.split(_THEN)
    known = not command or command == commands[0] or again in commands
    return earlier if known else f"{earlier}{_THEN}{again}"


def _same_file(given: str, earlier: Any) -> bool:
    """Whether a reference is the run's, however its path is spelt."""
    if given == earlier:
        return True
    return isinstance(earlier, str) and Path(given).resolve() == Path(earlier).resolve()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
