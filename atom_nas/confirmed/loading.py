"""`atom_nas.load_architecture`: a network of a run, with its trained weights or without."""

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

import search_spaces
from atom_nas.building import load_space
from atom_nas.confirmed.cards import SpaceCard, TrainedCard, read_cards, weights_of
from atom_nas.confirmed.loaded import LoadedArchitecture
from atom_nas.estimators.base import fingerprint
from atom_nas.names import harmless
from atom_nas.resuming import how_to_confirm
from atom_nas.run_folder import RECORD, read_record
from distill import synthetic as synthetic_sets
from distill.card import CARD, Side
from distill.leg import with_tied
from distill.synthetic import load_preprocessing, load_tensors
from distill.validation import first_problem
from reports.combinations import ranked
from reports.confirmed import FOLDER
from search_spaces.base import Space
from search_spaces.foreign import NniSpace
from search_spaces.sources import have_changed


class _Images(BaseModel):
    image_shape: tuple[Side, Side, Side]


class _Set(BaseModel):
    directory: str
    fingerprint: str
    unwhitened: bool | None = None


class _Settings(BaseModel):
    synthetic: str | None = None
    space: str | None = None
    estimators: list[str] = []


class _Record(BaseModel):
    """What is read here of a run's record."""

    score: str
    space: SpaceCard
    dataset: _Images
    synthetic: _Set
    settings: _Settings = _Settings()


def load_architecture(
    run: Path | str,
    rank: int | None = None,
    *,
    architecture: str | None = None,
    weights: bool = True,
    space: str | None = None,
) -> LoadedArchitecture:
    """A network of a search's run: by default the best of those it has confirmed, with trained weights.

    Args:
        run: the run's folder; for weights its `confirmed` folder alone will do, wherever it is.
        rank: 1-based, among the confirmed architectures, the highest validation accuracy first; without
            weights, in the run's own ranking. Default: 1.
        architecture: its string form, instead of a rank.
        weights: False gives the network of any ranked architecture, freshly initialised from torch's global
            generator.
        space: FILE.py:CLASS or module:CLASS, needed where the run searched a space of your own: its file is
            run, which no folder can ask for by itself.
    Raises:
        ValueError: the run has nothing confirmed, or no such rank or architecture; a file is damaged; or the
            space is not given, or another one; one line.
        OSError: a file cannot be read.
    """
    folder = Path(run)
    if rank is not None and architecture is not None:
        raise ValueError("give a rank or an architecture, not both")
    if rank is not None and type(rank) is not int:
        raise ValueError(f"rank must be a whole number from 1, not {rank!r}")
    if not folder.is_dir():
        raise ValueError(f"there is no run at {folder}: give the folder that 'atom-nas search --out' wrote")
    load = _load_trained if weights else _load_fresh
    return load(folder, 1 if rank is None else rank, architecture, space)


def _load_trained(run: Path, rank: int, architecture: str | None, own: str | None) -> LoadedArchitecture:
    is_run = (run / RECORD).is_file()
    folder = run / FOLDER if is_run else run
    cards = {card.architecture: (path, card) for path, card in read_cards(folder)}
    if not cards and (run / CARD).is_file():
        raise ValueError(f"{run} is a synthetic set, not a run: give the folder that 'atom-nas search' wrote")
    if not cards:
        raise ValueError(f"{run} holds no confirmed architecture, so no weights{_how(run) if is_run else ''}")
    name = _choose(list(cards), rank, architecture, f"{run}", "confirmed")
    path, card = cards[name]
    named = {"file": path.name, "what": "confirmed architecture"}
    preprocessing = load_preprocessing(folder, card.preprocessing, card.image_shape, **named)
    _require_room(path, card, name)
    with torch.random.fork_rng(devices=[]):
        network = _build(card.space, name, card.image_shape, len(card.classes), own)
    expected = network.state_dict()
    most = sum(tensor.nbytes for tensor in expected.values())
    try:
        tensors = load_tensors(weights_of(path), card.weights_sha256, **named, most=most)
    except ValueError as error:
        raise ValueError(f"{error}; 'atom-nas search ... --resume' trains it again") from None
    state = with_tied(tensors, expected)
    if _forms(expected) != _forms(state):
        raise ValueError(f"{weights_of(path)} does not hold the weights of {name}")
    network.load_state_dict(state)
    return LoadedArchitecture(
        network.eval(), tuple(card.classes), preprocessing, card.model_dump(mode="json")
    )


def _require_room(path: Path, card: TrainedCard, name: str) -> None:
    """Refuse a card of a network that its weights file cannot hold, before memory is taken for it."""
    weights = weights_of(path)
    if not weights.is_file() or ":" in card.space.name:
        return
    with torch.device("meta"):  # no memory for weights
        blank = _build(card.space, name, card.image_shape, len(card.classes), None)
    # Of weights that are tied the file has one.
    own = sum(parameter.nbytes for parameter in blank.parameters())
    if own > weights.stat().st_size:
        raise ValueError(f"{weights} does not hold the weights of {name}")


def _load_fresh(run: Path, rank: int, architecture: str | None, own: str | None) -> LoadedArchitecture:
    record = _record(run)
    name = _choose(ranked(run), rank, architecture, f"{run}", "ranked")
    synthetic = _synthetic_set(run, record)
    shape, classes = record.dataset.image_shape, synthetic.classes
    network = _build(record.space, name, shape, len(classes), own)
    card: dict[str, Any] = {"architecture": name, "image_shape": list(shape), "classes": list(classes)}
    card["space"] = record.space.model_dump(include={"name", "options"})
    preprocessing = synthetic.preprocessing
    if record.synthetic.unwhitened:
        preprocessing = preprocessing.unwhitened()
    return LoadedArchitecture(network, classes, preprocessing, card)


def _record(run: Path) -> _Record:
    try:
        return _Record.model_validate(read_record(run))
    except ValidationError as error:
        raise ValueError(
            f"{run / RECORD} is damaged or not a run's record ({harmless(first_problem(error))})"
        ) from None


def _synthetic_set(run: Path, record: _Record) -> synthetic_sets.SyntheticSet:
    """The set that the run searched with, for classes and preprocessing."""
    where = record.settings.synthetic or record.synthetic.directory
    try:
        synthetic = synthetic_sets.load(where)
    except ValueError as error:
        raise ValueError(
            f"{run} was searched with the synthetic set {where}, whose classes and preprocessing are needed "
            f"here: {error}"
        ) from None
    if fingerprint(synthetic.images, synthetic.targets) != record.synthetic.fingerprint:
        raise ValueError(f"{where} is not the synthetic set any more that {run} was searched with")
    return synthetic


def _build(
    space: SpaceCard, name: str, shape: tuple[int, int, int], classes: int, own: str | None
) -> nn.Module:
    if search_spaces.is_own(space.name) and own is None:
        raise ValueError(
            f"{name} is of a space of the searcher's own, {space.name}, whose code runs only if you name it: "
            f"load_architecture(..., space={_whole_name(space)!r})"
        )
    source = own if own and search_spaces.is_own(space.name) else space.name
    with _one_line(f"{name} of the space {space.name}, of options as its card has them, cannot be built"):
        loaded = load_space(source, space.options, shape, classes)
    if isinstance(loaded, NniSpace) and loaded.digest != space.known("digest"):
        raise ValueError(f"{source} offers other choices than the space {space.name} did that {name} is of")
    _warn_of_other_code(loaded, space, name)
    with _one_line(f"{name} of the space {space.name} cannot be built"):
        return loaded.build(loaded.parse(name), shape, classes)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever a space raises at values of other types than it takes, as a `ValueError`."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{what}: {type(error).__name__}: {said}") from error


def _warn_of_other_code(loaded: Space, card: SpaceCard, name: str) -> None:
    """The choices are the same, so what has changed may be a comment; whether it matters is the user's."""
    if not isinstance(loaded, NniSpace):
        return
    changed = loaded.changed(card.known("code"), card.known("sources"))
    if changed:
        warnings.warn(
            f"{have_changed(changed)} since {name} was searched: the network is built by the code as it is "
            "now, and need not score as recorded. A space may change as long as its choices do not; for the "
            "network as it was, put the code back",
            stacklevel=5,
        )


def _whole_name(space: SpaceCard) -> str:
    """With the path that it had when it was searched."""
    file = space.known("file")
    return f"{file}:{space.name.rpartition(':')[2]}" if file else space.name


def _forms(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _choose(names: Sequence[str], rank: int, architecture: str | None, run: str, what: str) -> str:
    if architecture is None:
        if not 1 <= rank <= len(names):
            raise ValueError(f"{run} has no rank {rank}: it has {len(names)} {what}, and ranks begin at 1")
        return names[rank - 1]
    if architecture in names:
        return architecture
    more = "" if what == "ranked" else "; one that is ranked alone has no weights: weights=False builds it"
    near = difflib.get_close_matches(architecture, names, n=2, cutoff=0.5) or names[:2]
    raise ValueError(
        f"{run} has no {what} architecture {architecture!r}: nearest of {len(names)}: "
        f"{' or '.join(map(repr, near)) or 'none'}{more}"
    )


def _how(run: Path) -> str:
    """How to get a confirmed architecture."""
    record = _record(run)
    settings = record.settings
    command = how_to_confirm(record.synthetic.directory, run, settings.space or "", settings.estimators)
    return f": train the best by '{command}' (weights=False gives the network of any ranked one without)"
