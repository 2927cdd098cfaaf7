"""Sharing a set: what is uploaded and what never, and one line for every refusal. Nothing here is online."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
from typer.testing import CliRunner

import distill
from atom_nas.cli import app
from atom_nas.hub import push
from distill.methods.dm import Config
from distill.settings import DistillSettings
from distill.synthetic import load

hub = pytest.importorskip("huggingface_hub")
OfflineModeIsEnabled = pytest.importorskip("huggingface_hub.errors").OfflineModeIsEnabled


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("someone") / "photos"
    for k, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 100 * k + 5 * i).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory, photos):
    config = Config(iterations=12, width=8, batch_real=4)
    out = tmp_path_factory.mktemp("sets") / "set"
    settings = DistillSettings(
        dataset=f"folder:{photos}", image_size=8, out=out, method="dm", method_config=config, ipc=1, zca=True
    )
    return distill.distill(settings).path


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "set"))


@pytest.fixture
def api(monkeypatch):
    """An HfApi that records its calls, and takes those only that the real one would take."""
    fake = create_autospec(hub.HfApi, instance=True)
    fake.repo_exists.return_value = False
    fake.list_repo_files.return_value = []
    monkeypatch.setattr(hub, "HfApi", lambda **_: fake)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_secret")
    return fake


def uploaded(api):
    """Name -> bytes of the one commit."""
    (call,) = api.create_commit.call_args_list
    adds = [each for each in call.args[1] if isinstance(each, hub.CommitOperationAdd)]
    found = {}
    for each in adds:
        with each.as_file() as file:
            found[each.path_in_repo] = file.read()
    return found


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("given", [Path, str, load])
def test_the_sets_own_files_are_uploaded_in_one_commit(folder, api, given):
    found = push(given(folder), "ada/photos")
    assert found.url == "https://huggingface.co/datasets/ada/photos"
    sent = uploaded(api)
    names = [
        "README.md",
        "card.json",
        "images.png",
        "log.jsonl",
        "synthetic.safetensors",
        "whitening.safetensors",
    ]
    assert sorted(sent) == sorted(found.files) == names
    for name in set(names) - {"card.json"}:
        assert sent[name] == (folder / name).read_bytes(), name
    assert api.create_commit.call_args.args[0] == "ada/photos"
    assert api.create_commit.call_args.kwargs["repo_type"] == "dataset"


def test_what_was_uploaded_is_a_set_and_tells_no_path(folder, api, tmp_path, photos):
    push(folder, "ada/photos")
    there = tmp_path / "there"
    there.mkdir()
    for name, content in uploaded(api).items():
        (there / name).write_bytes(content)
        assert b"someone" not in content, name
        assert str(photos.parent).encode() not in content, name
    found = distill.load(there)
    assert torch.equal(found.images, distill.load(folder).images)
    assert found.card["dataset"]["name"] == found.card["config"]["dataset"] == "folder:photos"
    with pytest.raises(ValueError, match="say where they are now"):
        found.real_dataset()
    assert found.real_dataset(name=f"folder:{photos}").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "strange",
    ["notes.txt", ".lock", "checkpoint.safetensors", ".env", "tensorboard/events", "export/0/000.png"],
)
def test_nothing_else_is_uploaded(folder, api, strange):
    (folder / strange).parent.mkdir(parents=True, exist_ok=True)
    (folder / strange).write_bytes(b"secret")
    push(folder, "ada/photos")
    sent = uploaded(api)
    assert strange not in sent
    assert not any(b"secret" in content for content in sent.values())


def test_losses_of_a_run_that_replaces_the_set_stay(folder, api):
    (folder / "checkpoint.safetensors").touch()
    push(folder, "ada/photos")
    assert "log.jsonl" not in uploaded(api)


@pytest.mark.parametrize(
    "content",
    ["a line of text", '{"iteration": 1, "user": "ada"}', "[1]", '{"iteration": [1]}', "\udcff", "",
     '{"pass word hunter2": 1}']
)  # fmt: skip
@pytest.mark.parametrize("name", ["log.jsonl", "evaluations.jsonl"])
def test_logs_that_hold_more_than_numbers_stay(folder, api, name, content):
    (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    push(folder, "ada/photos")
    assert name not in uploaded(api)


def test_evaluations_go_along(folder, api):
    (folder / "evaluations.jsonl").write_text('{"iteration": 10, "accuracy": null, "n": 5}\n')
    push(folder, "ada/photos")
    assert "evaluations.jsonl" in uploaded(api)


def test_links_to_other_files_of_this_machine_are_not_followed(folder, api, tmp_path):
    (tmp_path / "id_rsa").write_text("secret")
    for name in ("README.md", "images.png", "log.jsonl"):
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "id_rsa")
    push(folder, "ada/photos")
    sent = uploaded(api)
    assert not any(b"secret" in content for content in sent.values())
    assert sent["README.md"].startswith(b"---\npretty_name")
    assert sent["images.png"].startswith(b"\x89PNG")


def test_a_readme_that_was_edited_is_kept_and_a_missing_one_written(folder, api):
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nmine\n")
    push(folder, "ada/photos")
    assert uploaded(api)["README.md"].endswith(b"mine\n")
    api.create_commit.reset_mock()
    (folder / "README.md").unlink()
    push(folder, "ada/photos")
    assert b"## Cautions" in uploaded(api)["README.md"]


@pytest.mark.parametrize(("asked", "private"), [(None, True), (True, True), (False, False)])
def test_a_new_repository_is_private_unless_told(folder, api, asked, private):
    found = push(folder, "ada/photos", private=asked)
    api.create_repo.assert_called_once_with("ada/photos", repo_type="dataset", private=private)
    assert (found.private, found.created) == (private, True)


@pytest.mark.parametrize("is_private", [True, False])
def test_an_existing_repository_stays_as_it_is(folder, api, is_private):
    api.repo_exists.return_value = True
    api.repo_info.return_value = SimpleNamespace(private=is_private)
    found = push(folder, "ada/photos")
    api.create_repo.assert_not_called()
    assert (found.private, found.created) == (is_private, False)
    with pytest.raises(ValueError, match="exists and is"):
        push(folder, "ada/photos", private=not is_private)
    assert api.create_commit.call_count == 1


def test_files_of_an_earlier_set_are_removed_there(folder, api):
    api.repo_exists.return_value = True
    api.repo_info.return_value = SimpleNamespace(private=True)
    api.list_repo_files.return_value = ["evaluations.jsonl", "log.jsonl", "theirs.txt", ".gitattributes"]
    push(folder, "ada/photos")
    operations = api.create_commit.call_args.args[1]
    removed = [each.path_in_repo for each in operations if isinstance(each, hub.CommitOperationDelete)]
    assert removed == ["evaluations.jsonl"]


@pytest.mark.parametrize(
    "repo",
    ["photos", "ada/photos/more", "/photos", "ada/", "../x", "ada/a b", "ada/a..b", "-a/b", "ada/x.git",
     "https://huggingface.co/ada/photos", "ada/a--b", "ada/\u00e4", ""]
)  # fmt: skip
def test_other_names_are_refused_before_anything_is_done(folder, api, repo):
    with pytest.raises(ValueError, match="named as USER/NAME"):
        push(folder, repo)
    assert not api.method_calls


def test_names_that_are_let_through_are_names_to_the_hub(folder, api):
    from huggingface_hub.utils import validate_repo_id

    for repo in ("ada/photos", "a/b", "Ada-1/photos_2.v3", "ada/_x"):
        validate_repo_id(repo)  # raises on any other
        assert push(folder, repo).url.endswith(repo)


def refused(folder, *options):
    """The one line of a refusal."""
    result = call("push", folder, "ada/photos", *options)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("atom-nas: ")
    return line


def test_what_is_no_set_is_refused_before_anything_is_done(folder, api):
    (folder / "synthetic.safetensors").write_bytes(b"damaged")
    assert "was changed or damaged" in refused(folder)
    assert "holds no synthetic set" in refused(folder.parent)
    assert not api.method_calls


def test_without_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refused(folder) == "atom-nas: huggingface_hub is not installed: pip install 'atom-nas[hub]'"


def test_without_a_token(folder, api, monkeypatch):
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert "log in with 'hf auth login', or set HF_TOKEN" in refused(folder)
    assert not api.method_calls


class RefusalError(Exception):
    """As huggingface_hub's, which differ by version in their base and in how they are made."""

    def __init__(self, status, text):
        super().__init__(text)
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RefusalError(401, "401 Client Error\n\nInvalid token"), "the token is not accepted"),
        (RefusalError(403, "403 Forbidden"), "may not write there"),
        (RefusalError(404, "404 Not Found"), "no such user or organisation"),
        (RefusalError(500, "500 Server Error\nfor url"), "the Hub answered with 500 (500 Server Error)"),
        (ConnectionError("Name or service not known"), "no connection (Name or service not known)"),
        (TimeoutError(), "no connection (TimeoutError)"),
        (
            OfflineModeIsEnabled("offline mode is enabled"),
            "no connection (offline mode is enabled)",
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("step", ["repo_exists", "create_repo", "create_commit"])
def test_what_hub_and_network_refuse_is_one_line(folder, api, step, error, said):
    getattr(api, step).side_effect = error
    line = refused(folder)
    assert line.startswith("atom-nas: cannot push to ada/photos: ")
    assert said in line
    assert "hf_secret" not in line


def test_a_real_attempt_without_network_is_one_line(folder, monkeypatch):
    """The real HfApi, sent to a port where nobody listens."""
    script = (
        "import sys, huggingface_hub\n"
        "from atom_nas.cli import app\n"
        f"app(['push', {str(folder)!r}, 'ada/photos'])\n"
    )
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import os

    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], timeout=120,
    )  # fmt: skip
    assert said.returncode == 2, said.stderr
    line = said.stderr.splitlines()[-1]
    assert line.startswith("atom-nas: cannot push to ada/photos: no connection")


def test_defects_are_not_taken_for_refusals(folder, api):
    api.create_commit.side_effect = TypeError("unexpected keyword")
    with pytest.raises(TypeError):
        push(folder, "ada/photos")


@pytest.mark.parametrize(
    ("option", "seen"), [("--private", "private"), ("--public", "public: everybody sees it")]
)
def test_the_command_says_where_it_is_and_who_sees_it(folder, api, option, seen):
    result = call("push", folder, "ada/photos", option)
    assert result.exit_code == 0, result.output
    assert f"https://huggingface.co/datasets/ada/photos ({seen}" in result.stdout.replace("\n", "")


def test_help_says_what_a_new_repository_is():
    text = "".join(call("push", "--help").output.split())
    assert "anewoneisprivate" in text
    assert "pipinstall'atom-nas[hub]'" in text


def test_nothing_imports_the_library_before_it_is_used():
    check = "import sys, atom_nas.hub, atom_nas.cli; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[2])


def test_the_uploaded_card_is_whole(folder, api):
    push(folder, "ada/photos")
    own, sent = json.loads((folder / "card.json").read_text()), json.loads(uploaded(api)["card.json"])
    for card in (own, sent):
        del card["dataset"]["name"], card["config"]["dataset"]
    assert sent == own
