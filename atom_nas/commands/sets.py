"""The commands on synthetic sets that are there: merge, label, evaluate, export, push.

As in `cli`, commands import what they need when they run.
"""

from pathlib import Path
from typing import Annotated

import typer

from atom_nas.commands import options as opt
from atom_nas.commands.guard import guarded


@guarded
def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(
            help="The folders of all shards of one distillation, in any order.", metavar="SHARD..."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write the synthetic set to.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
) -> None:
    """Put together what 'atom-nas distill --shard' made of each part of the classes; the shards are kept."""
    from atom_nas.terminal.stages import show_merge

    show_merge(shards, out, overwrite=overwrite)


@guarded
def label(
    directory: opt.Synthetic,
    out: opt.LabelledFolder,
    teachers: opt.Teachers = 1,
    network: opt.TeacherNetwork = None,
    epochs: opt.TeacherEpochs = None,
    temperature: opt.Temperature = 1.0,
    hard_share: opt.HardShare = 0.0,
    set_: opt.Set = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    dataset: opt.Moved = None,
    data_dir: opt.DataDir = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Give a set soft labels: what networks trained on the real images say of each of its images.

    Teachers train in batches of 128, one-cycle schedule to 0.02 (--set says otherwise).
    evaluate and search then train on these. An interrupted labelling goes on when the command is repeated.
    """
    from atom_nas.config import assigned, choose_dataset, given
    from atom_nas.terminal.stages import show_label

    show_label(
        directory,
        out,
        options={
            **given(network=network),
            "teachers": teachers,
            "temperature": temperature,
            "hard_share": hard_share,
            "seed": seed,
        },
        training={**given(epochs=epochs), **assigned(set_, {"epochs": epochs})},
        device=device,
        dataset=choose_dataset(dataset) if dataset else None,
        data_dir=data_dir,
        overwrite=overwrite,
    )


@guarded
def evaluate(
    directories: opt.Directories,
    networks: opt.Networks = None,
    repeats: opt.Repeats = 5,
    epochs: opt.TrainingEpochs = None,
    split: opt.SplitName = "test",
    baseline: opt.Baseline = True,
    balanced: opt.Balanced = False,
    set_: opt.Set = None,
    workers: opt.TrainingWorkers = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    dataset: opt.Moved = None,
    data_dir: opt.DataDir = None,
    fresh: opt.Fresh = False,
    picture: opt.Picture = None,
    as_json: opt.AsJson = False,
) -> None:
    """Train fresh networks on synthetic sets and test them on real images.

    Finished trainings are kept in ~/.cache/atom-nas and not repeated.
    """
    from atom_nas.config import assigned, choose_dataset, given
    from atom_nas.terminal.console import claim_stdout
    from atom_nas.terminal.stages import EvaluationOutput, evaluation_plan, show_evaluation

    if as_json:
        claim_stdout()
    plan = evaluation_plan(
        directories,
        networks=networks,
        repeats=repeats,
        training={**given(epochs=epochs), **assigned(set_, {"epochs": epochs})},
        split=split,
        baseline=baseline,
        balanced=balanced,
        seed=seed,
        device=device,
    )
    show_evaluation(
        plan,
        EvaluationOutput(picture=picture, as_json=as_json),
        dataset=choose_dataset(dataset) if dataset else None,
        data_dir=data_dir,
        workers=workers,
        fresh=fresh,
    )


@guarded
def export(
    directory: opt.Synthetic,
    to: Annotated[str, typer.Option(help="folder (PNG per class), npz or pt.")],
    out: Annotated[Path | None, typer.Option(help="Where to; DIR/export... by default.")] = None,
) -> None:
    """Write a synthetic set in a format that other programs read."""
    from atom_nas.names import choose
    from atom_nas.terminal.console import say, stdout
    from distill.export import FORMATS
    from distill.export import export as write
    from distill.synthetic import load

    choose("format", to, FORMATS)
    target = out or directory / ("export" if to == "folder" else f"export.{to}")
    synthetic = load(directory)
    if to == "folder" and synthetic.soft_labels is not None:
        say("soft labels are left out: a folder knows one class an image; npz and pt hold them")
    stdout.print(str(write(synthetic, to, target)), markup=False)


@guarded
def push(
    directory: opt.Synthetic,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="A dataset repository; made if need be.")],
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public",
            help="Who sees it: you, or everybody.  [default: a new one is private, another stays as it is]",
        ),
    ] = None,
) -> None:
    """Share a synthetic set on the Hugging Face Hub; needs pip install 'atom-nas[hub]' and 'hf auth login'.

    Uploaded are the set's own files alone, less paths of this machine: data, card, pictures, README, losses.
    """
    from atom_nas.terminal.stages import show_push

    show_push(directory, repo, private)
