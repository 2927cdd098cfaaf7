"""A run's folder: run.json, the trial store, and the rules for starting and resuming."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from atom_nas.trials import TrialStore
from distill.files import lock_folder, read_regular, refuse_links, write_text
from reports.confirmed import FOLDER
from reports.rungs import has_trained
from reports.scores import MEAN_OF_RANKS
from reports.weights import weights_of

RECORD_FORMAT = 1
LARGEST_RECORD = 64 * 2**20
RECORD = "run.json"
STORE = "trials.sqlite"
CHECKPOINTS = "checkpoints"
"""Of successive halving."""
UNFINISHED = "unfinished"
"""Below `FOLDER`: checkpoints of the trainings that a confirmation has begun."""
_WRITTEN_TO = (STORE, f"{STORE}-wal", f"{STORE}-shm", CHECKPOINTS, FOLDER, f"{FOLDER}/{UNFINISHED}")

# What a resumed run may not change, because it changes scores or proposals.
_OTHERWISE = "{} cannot be resumed with other settings: {}; give it as it was, or choose another --out"
_UNWHITENED = "synthetic.unwhitened"
_LIMITS = ("space.limits.parameters", "space.limits.flops")
_FIXED = (
    "seed",
    "dataset.fingerprint",
    "synthetic.fingerprint",
    _UNWHITENED,
    *(f"space.{entry}" for entry in ("name", "options", "choices", "digest", "size", "fitting")),
    "strategy.name",
    "strategy.options",
    "strategy.criterion",
    "strategy.combined",
)
_FIXED_LAST = ("device", "proxy")
_HEEDLESS = ("random", "grid", "list")
"""Strategies that propose the same whatever scores they get: their run may be ranked by another."""


class RunFolder:
    """An open run: its record (what run.json says) and its store. Holds a lock against a second search."""

    def __init__(self, path: Path, record: dict[str, Any], store: TrialStore, lock: IO[str]) -> None:
        """Use `open_run`."""
        self.path = path
        self.record = record
        self.store = store
        self._lock = lock
        self._clock: tuple[str, float, float] | None = None
        self._saved = self._saving = 0.0

    def save_now_and_then(self) -> None:
        """`save`, if the last time was long ago: at least a second, and twenty times as long as it took."""
        if time.perf_counter() - self._saved >= max(1.0, 20 * self._saving):
            self.save()

    def save(self) -> None:
        """Write run.json, with the wall seconds of the stage under way up to now."""
        begun = time.perf_counter()
        if self._clock:
            name, before, start = self._clock
            self.record[name] = before + time.perf_counter() - start
        write_text(self.path / RECORD, json.dumps(self.record, indent=2, allow_nan=False) + "\n")
        self._saved = time.perf_counter()
        self._saving = self._saved - begun

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the wall seconds of the block to the record's entry `name`, on top of earlier sessions'."""
        self._clock = (name, self.record.get(name) or 0.0, time.perf_counter())
        try:
            yield
        finally:
            self.save()
            self._clock = None

    def close(self) -> None:
        """Close the store and let another search in."""
        self.store.close()
        self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_run(path: Path, record: dict[str, Any], *, resume: bool) -> RunFolder:
    """Start a run in a new or empty folder, or go on with an interrupted one.

    Args:
        path: the folder, made if absent.
        record: what run.json is to say; wall seconds of an earlier session are carried over, and which
            architectures it found to be one network.
        resume: go on with a run that is there.
    Raises:
        ValueError: the folder is taken and `resume` is false; there is none and it is true; or the settings
            are not those of the run that is there (names the first difference).
        OSError: it cannot be written.
    """
    check_run(path, record, resume=resume)
    path.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(path, "search")
    try:
        # Again, now that nobody else can write: another search may have come first.
        earlier = check_run(path, record, resume=resume)
        carried = {name: value for name, value in earlier.items() if name.endswith("_wall_seconds")}
        carried |= {"same": earlier["same"]} if isinstance(earlier.get("same"), dict) else {}
        before = _entry(earlier, "estimators")
        # Scores that are there stay, whether or not this session has more of them to make.
        carried |= {"estimators": {**before, **record["estimators"]}} if isinstance(before, dict) else {}
        if earlier.get("confirm") and not record.get("confirm"):
            # What an earlier session has confirmed is there, whether or not this one confirms.
            carried["confirm"] = earlier["confirm"]
        # The record first: a folder with a record and no store resumes, one with a store alone could not.
        write_text(path / RECORD, json.dumps(record | carried, indent=2, allow_nan=False) + "\n")
        store = TrialStore.create(path / STORE)
        for name in _scored_anew(earlier, record, path):
            store.discard_all(name)
    except BaseException:
        lock.close()
        raise
    folder = RunFolder(path, record | carried, store, lock)
    folder.save()
    return folder


def check_place(path: Path, *, resume: bool) -> bool:
    """Refuse a folder that `open_run` would refuse whatever the run; whether there is something in it."""
    if path.is_file():
        raise ValueError(f"{path} is a file: give a folder for the run")
    if resume and not path.is_dir():
        raise ValueError(f"there is no run to resume at {path}: check the path, or start it without --resume")
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise ValueError(f"{path} cannot be made, as {there} is no folder: choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written, as {there} may not be: choose another --out")
    taken = path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir())
    if taken and not resume:
        raise ValueError(
            f"{path} is not empty: go on with the run in it by --resume, or choose another --out"
        )
    return taken


def check_run(path: Path, record: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
    """Refuse what `open_run` would refuse, before any work; the earlier run's record, or an empty one."""
    if not check_place(path, resume=resume):
        return {}
    refuse_links(path, _WRITTEN_TO)
    earlier = read_record(path)
    scored = earlier.get("estimators", {})
    if not (isinstance(scored, dict) and all(isinstance(each, dict) for each in scored.values())):
        raise ValueError(f"{path / RECORD} is damaged or not a run's record: its estimators have no settings")
    _require_same(earlier, record, path)
    _require_store(earlier, path)
    return earlier


def _require_store(earlier: Mapping[str, Any], path: Path) -> None:
    """Refuse a run that has worked and has no trials: going on would begin it anew, unnoticed."""
    worked = any(name.endswith("_wall_seconds") and value for name, value in earlier.items())
    store = path / STORE
    if worked and not (store.is_file() and store.stat().st_size):
        raise ValueError(
            f"{store}, which holds the run's trials, is empty or gone: put it back, or choose another --out"
        )


def read_record(path: Path) -> dict[str, Any]:
    """The run.json of a run folder.

    Raises:
        ValueError: there is none, it is damaged, or of a newer format.
    """
    file = path / RECORD
    if not file.is_file():
        raise ValueError(f"{path} is not a run folder: it has no {RECORD}, which search writes to its --out")
    try:
        record = json.loads(read_regular(file, LARGEST_RECORD).decode())
        json.dumps(record, ensure_ascii=False).encode()  # half of a surrogate pair could not be written again
        version = record["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged or not a run's record: {error}") from error
    if version != RECORD_FORMAT:
        raise ValueError(f"{file} has format {version}, not {RECORD_FORMAT}: use the atom-nas that wrote it")
    return dict(record)


def _require_same(earlier: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise on the first setting that changes scores; more samples and other workers are welcome."""
    for name in _LIMITS:  # before the list, which is cut down by them
        if found := first_difference(name, _entry(earlier, name), _entry(now, name)):
            raise ValueError(_OTHERWISE.format(path, found))
    _require_same_list(earlier, now, path)
    known = _entry(earlier, "estimators") or {}
    anew = _scored_anew(earlier, now, path)
    both = tuple(
        f"estimators.{name}" for name in _entry(now, "estimators") or {} if name in known and name not in anew
    )
    for name in (*_FIXED, *_fixed_of_ranking(earlier), *_FIXED_LAST, *both, *_fixed_of_reference(earlier)):
        found = first_difference(name, _entry(earlier, name), _entry(now, name))
        if found and name.endswith(".fingerprint"):
            begun, given = (_entry(record, "synthetic.directory") for record in (earlier, now))
            other = (
                "is of other real images" if name.startswith("dataset") else "holds other images or labels"
            )
            found = f"it was begun with the set {begun}, and {given} {other}"
        if name == _UNWHITENED:
            found = _whitening_difference(earlier, now)
        if found:
            raise ValueError(_OTHERWISE.format(path, found))
    before, after = _entry(earlier, "strategy.samples"), _entry(now, "strategy.samples")
    if after < before:
        raise ValueError(f"{path} has {before} samples: a resumed run may only raise them")
    if after > before and "rungs" in (_entry(earlier, "strategy.options") or {}):
        _require_open(earlier, path, before)


def _whitening_difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Runs from before there was the choice say nothing, and trained on whitened sets as they are."""
    before, after = (bool(_entry(record, _UNWHITENED)) for record in (earlier, now))
    if before == after:
        return None
    how = "--unwhiten (unwhiten=True)" if before else "--no-unwhiten (unwhiten=False)"
    return f"its whitened set was trained on by {how}"


def _decided(earlier: Mapping[str, Any], path: Path) -> set[str]:
    """Estimators whose scores have decided which architectures were trained on."""
    parts = _entry(earlier, "strategy.combined")
    if not isinstance(parts, list) or not (path / STORE).is_file():
        return set()
    with TrialStore.open(path / STORE) as trials:
        return set(weights_of(map(str, parts))) if has_trained(trials.estimators()) else set()


def _scored_anew(earlier: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> list[str]:
    """Estimators that score anew: the user's own whose code has changed and that have no score by the
    earlier code, and ours whose measure is another by now, which takes little; none that has decided
    already which architectures train on.

    Raises:
        ValueError: one has such scores, with which those by the code of now cannot be mixed.
    """
    known, settings = (_entry(record, "estimators") or {} for record in (earlier, now))
    decided = _decided(earlier, path)
    both = {name: of for name, of in known.items() if name in settings and name not in decided}
    changed = [name for name, of in both.items() if settings[name].get("code") != of.get("code")]
    other = [name for name, of in both.items() if settings[name].get("measure") != of.get("measure")]
    if not changed or not (path / STORE).is_file():
        return [*changed, *other]
    with TrialStore.open(path / STORE) as trials:
        for name in changed:
            if any(trial.done for trial in trials.trials(name)):
                raise ValueError(
                    f"the code of {name} has changed since {path} was scored by it: put it back, or rename "
                    "the function to score by what it is now as well"
                )
    return [*changed, *other]


def _require_same_list(earlier: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    before, after = _list_of(earlier), _list_of(now)
    if before is after is None:
        return
    if before and _entry(earlier, "strategy.name") == "list" != _entry(now, "strategy.name"):
        raise ValueError(f"{path} ranks all of its list: leave --samples out, or begin a new run")
    if not (before and after):
        how = "with" if before else "without"
        raise ValueError(f"{path} was begun {how} --architectures: go on so, or begin a new run")
    if before != after:
        raise ValueError(
            f"{_entry(now, 'settings.architectures')} does not list what it did when {path} was begun: put "
            "it back, or begin a new run"
        )


def _list_of(record: Mapping[str, Any]) -> Any:
    """What tells the list to which a search is confined from another, None where it has all of its space."""
    return _entry(record, "strategy.among") or _entry(record, "strategy.options.fingerprint")


def _require_open(earlier: Mapping[str, Any], path: Path, samples: int) -> None:
    """Refuse more samples where they would change which architectures have gone on to more epochs."""
    if _entry(earlier, "strategy.name") == "hyperband":
        so = "hyperband shares its samples out among its brackets when it begins"
    elif earlier.get("complete") or _is_ranked(path / STORE):
        so = f"its {samples} architectures are ranked, and more would change which of them went on"
    else:
        return
    raise ValueError(f"{path} takes no more samples: {so}: begin a new run with as many as you want")


def _is_ranked(store: Path) -> bool:
    if not store.is_file():
        return False
    with TrialStore.open(store) as trials:
        return bool(trials.trials("proxy"))


def _fixed_of_ranking(earlier: Mapping[str, Any]) -> tuple[str, ...]:
    halved = "rungs" in (_entry(earlier, "strategy.options") or {})
    if _entry(earlier, "strategy.name") in _HEEDLESS and not halved:
        return ()
    return ("score", "combine") if earlier.get("score") == MEAN_OF_RANKS else ("score",)


def _fixed_of_reference(earlier: Mapping[str, Any]) -> tuple[str, ...]:
    # Reference trials in the store bind a run to their settings; a run without them may get any reference.
    trained = _entry(earlier, "reference.kind") == "real"
    return ("reference.kind", "reference.settings") if trained else ()


def first_difference(name: str, before: Any, after: Any) -> str | None:
    """`NAME was X there and is Y now` for the first entry that differs, or None; dicts are searched.

    None stands for an entry that is not there.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in (*before, *(key for key in after if key not in before)):
            found = first_difference(f"{name}.{key}", before.get(key), after.get(key))
            if found:
                return found
        return None
    if before == after:
        return None
    was, now = ("not set" if value is None else repr(value) for value in (before, after))
    return f"{name} was {was} there and is {now} now"


def _entry(record: Mapping[str, Any], dotted: str) -> Any:
    value: Any = record
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
