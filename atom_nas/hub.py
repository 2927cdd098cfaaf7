"""A synthetic set shared as a dataset repository on the Hugging Face Hub.

Only what the set is made of goes there: checked data, pictures drawn anew from it, the card without paths of
this machine, the README, and logs that hold nothing but numbers. `huggingface_hub` is an extra, imported when
used.
"""

import importlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.card import CARD
from distill.checkpoint import CHECKPOINT
from distill.readme import README, readme, shared_name
from distill.session import EVALUATIONS, LOG
from distill.synthetic import IMAGES, PICTURE, WHITENING, SyntheticSet, load

_REPO = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_KIND = "dataset"
_LONGEST_LOG = 64 * 2**20
_REFUSALS = {
    401: "the token is not accepted: log in again with 'hf auth login', or set HF_TOKEN",
    403: "the token may not write there: use one that may, or name a repository of your own",
    404: "there is no such user or organisation, or the token may not see it",
}


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What came of it.

    Attributes:
        url: of the repository.
        private: whether only its owners see it.
        created: whether it is new.
        files: what was uploaded, by name.
    """

    url: str
    private: bool
    created: bool
    files: tuple[str, ...] = field(default=())


def push(synthetic: SyntheticSet | Path | str, repo: str, *, private: bool | None = None) -> Pushed:
    """Upload a set to the dataset repository `repo`, in one commit.

    Args:
        synthetic: its folder, or the set, whose folder is read again.
        repo: USER/NAME or ORGANISATION/NAME; made if it does not exist.
        private: what a new repository is to be, and what an existing one must be; None makes a new one
            private and takes an existing one as it is.
    Raises:
        ValueError: in one line: no valid set, `repo` of another form, `huggingface_hub` not installed, no
            token, an existing repository of the other visibility, or whatever the Hub or the network refuses.
    """
    _require_name(repo)
    hub = _library()
    contents = _contents(load(synthetic.path if isinstance(synthetic, SyntheticSet) else synthetic))
    if not hub.get_token():
        raise ValueError("there is no Hugging Face token: log in with 'hf auth login', or set HF_TOKEN")
    try:
        return _upload(hub, contents, repo, private)
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise ValueError(f"cannot push to {repo}: {reason}") from error


def _upload(hub: Any, contents: dict[str, Path | bytes], repo: str, private: bool | None) -> Pushed:
    api = hub.HfApi(library_name="atom-nas")
    exists = api.repo_exists(repo, repo_type=_KIND)
    if exists:
        is_private = bool(api.repo_info(repo, repo_type=_KIND).private)
        if private is not None and private != is_private:
            raise ValueError(
                f"{repo} exists and is {_visibility(is_private)}: change that on its settings page, leave "
                f"out --{_visibility(private)}, or name another"
            )
    else:
        is_private = private is not False
        # Someone may have made it a moment ago: then this fails, and nothing is shown to strangers.
        api.create_repo(repo, repo_type=_KIND, private=is_private)
    operations = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in contents.items()
    ]
    stale = _stale(api.list_repo_files(repo, repo_type=_KIND) if exists else [], contents)
    operations += [hub.CommitOperationDelete(path_in_repo=name) for name in stale]
    api.create_commit(repo, operations, commit_message="Synthetic set by atom-nas", repo_type=_KIND)
    url = f"https://huggingface.co/datasets/{repo}"
    return Pushed(url=url, private=is_private, created=not exists, files=tuple(contents))


def _stale(there: list[str], contents: dict[str, Path | bytes]) -> list[str]:
    """Files of an earlier set in the repository that this one has no more."""
    ours = (WHITENING, LOG, EVALUATIONS)
    return [name for name in there if name in ours and name not in contents]


def _contents(synthetic: SyntheticSet) -> dict[str, Path | bytes]:
    """What to upload, by name: files of the folder that were checked, bytes for what is made anew."""
    folder, card = synthetic.path, _shared_card(synthetic.card)
    contents: dict[str, Path | bytes] = {IMAGES: folder / IMAGES}
    if synthetic.preprocessing.whitening:
        contents[WHITENING] = folder / WHITENING
    contents[PICTURE] = synthetic.picture()
    for name in (LOG, EVALUATIONS):
        # Once a run has begun to replace the set, they are of that run.
        numbers = None if (folder / CHECKPOINT).exists() else _numbers(folder / name)
        if numbers is not None:
            contents[name] = numbers
    own = folder / README
    written = own.is_file() and not own.is_symlink()  # A link may lead anywhere on this machine.
    contents[README] = own if written else readme(card).encode()
    contents[CARD] = (json.dumps(card, indent=1) + "\n").encode()
    return contents


def _shared_card(card: dict[str, Any]) -> dict[str, Any]:
    """The card without the path of a folder of images, which tells of the machine and helps nobody else."""
    name = shared_name(card["dataset"]["name"])
    shared = {**card, "dataset": {**card["dataset"], "name": name}}
    if "dataset" in card["config"]:
        shared["config"] = {**card["config"], "dataset": name}
    return shared


def _numbers(path: Path) -> bytes | None:
    """The content of a log, if each of its lines is a JSON object of numbers; None for any other file."""
    if not path.is_file() or not 0 < path.stat().st_size <= _LONGEST_LOG:
        return None
    content = path.read_bytes()
    try:
        points = [json.loads(line) for line in content.decode().splitlines()]
    except (ValueError, RecursionError):
        return None
    plain = all(isinstance(point, dict) and _only_numbers(point) for point in points)
    return content if plain else None


def _only_numbers(point: dict[str, Any]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in point.values()) and all(
        re.fullmatch(r"[a-z_]{1,40}", name) for name in point
    )


def _require_name(repo: str) -> None:
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.endswith(".git"):
        raise ValueError(f"a repository is named as USER/NAME, e.g. ada/digits-atom-ipc10, not {repo!r}")


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise ValueError("huggingface_hub is not installed: pip install 'atom-nas[hub]'") from None


def _reason(error: Exception) -> str | None:
    """Why the Hub or the network refused, in a line; None for a defect of the program."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return _REFUSALS.get(status) or f"the Hub answered with {status} ({_first_line(error)})"
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.filename):
        return None  # It says what is wrong already: a name, or a file on this machine.
    # The network's errors are OSErrors or not, by the HTTP library that is used.
    network = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2")
    return f"no connection ({_first_line(error)})" if network else None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _visibility(private: bool) -> str:
    return "private" if private else "public"
