"""The command line. It and the files that work for it (guard, console, terminal, summary) print; only `guard`
exits.

Commands import what they need when they run: '--help' must answer before torch could be imported.
"""

from pathlib import Path
from typing import Annotated

import typer

from atom_nas import __version__
from atom_nas.commands import options as opt
from atom_nas.commands import sets
from atom_nas.commands.guard import Commands, guarded
from atom_nas.commands.typed import command_line, said

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich help would import a Markdown parser, a third of the time that --help takes.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Rank neural architectures cheaply: distill a dataset to a few synthetic images per class, train "
    "the candidates on those, and learn how far to trust the ranking.\n\n"
    "Start with 'atom-nas quickstart'; then 'atom-nas distill' and 'atom-nas search'.",
)


def main() -> None:
    """The console script."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atom-nas {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Holds the options that stand before a command."""


@app.command(
    epilog="\b\nExamples:"
    "\n  atom-nas distill --dataset digits --out runs/digits"
    "\n  atom-nas distill --dataset cifar10 --ipc 10 --preset fast --out runs/fast"
    "\n  atom-nas distill --dataset cifar10 --ipc 10 --preset paper --device cuda --out runs/c10"
    "\n  atom-nas distill --dataset folder:photos --image-size 32 --set learning_rate=0.5 --out runs/photos"
    "\n  atom-nas distill --dataset cifar100 --shard 2/8 --out runs/part-2  (then atom-nas merge)"
)
@guarded
def distill(
    out: opt.SetFolder = None,
    dataset: opt.Dataset = None,
    method: opt.Method = None,
    preset: opt.Preset = None,
    ipc: opt.Ipc = None,
    iterations: opt.Iterations = None,
    seed: opt.DistillSeed = None,
    device: opt.Device = "auto",
    zca: opt.Zca = None,
    image_size: opt.ImageSize = None,
    config: opt.Config = None,
    set_: opt.Set = None,
    data_dir: opt.DataDir = None,
    tensorboard: opt.Tensorboard = None,
    images_every: opt.ImagesEvery = None,
    evaluate_every: opt.EvaluateEvery = None,
    resume: opt.ResumeDistill = False,
    overwrite: opt.Overwrite = False,
    shard: opt.Shard = None,
    deterministic: opt.Deterministic = None,
) -> None:
    """Distill a real dataset into a small synthetic set."""
    from atom_nas.config import as_begun, assigned, distill_settings, given, read_config, with_preset
    from atom_nas.terminal.stages import show_distill, show_preset

    options = given(
        dataset=dataset, method=method, preset=preset, ipc=ipc, iterations=iterations, seed=seed, zca=zca,
        image_size=image_size, data_dir=data_dir, out=out, shard=shard, deterministic=deterministic,
        images_every=images_every, evaluate_every=evaluate_every,
        tensorboard=True if tensorboard == "" else tensorboard, device=None if device == "auto" else device,
    )  # fmt: skip
    file = read_config(config) if config else {}
    values = {**file, **options, **assigned(set_, options)}
    if "out" not in values:
        raise ValueError("no folder to write to; add --out DIR")
    if not isinstance(values["out"], str | Path):
        raise ValueError(f"out is {values['out']!r}: name one folder")
    if resume and not Path(values["out"]).exists():
        raise ValueError(f"there is nothing to resume at {values['out']}; check --out, or leave out --resume")
    if resume and "dataset" not in values:
        values = as_begun(values)
    values.setdefault("device", device)
    filled = with_preset(values)
    settings = distill_settings(filled.values)
    show_preset(filled)
    show_distill(settings, resume=resume, overwrite=overwrite)


app.command(epilog="\b\nExample:\n  atom-nas merge runs/part-1 runs/part-2 runs/part-3 --out runs/whole")(
    sets.merge
)
app.command(
    epilog="\b\nExamples:"
    "\n  atom-nas label runs/c10 --out runs/c10-soft"
    "\n  atom-nas label runs/c10 --teachers 3 --epochs 10 --set learning_rate=0.01 --out runs/c10-soft"
)(sets.label)
app.command(
    epilog="\b\nExamples:"
    "\n  atom-nas evaluate runs/digits"
    "\n  atom-nas evaluate runs/c10 --networks convnet3,convnet4 --repeats 5 --json"
    "\n  atom-nas evaluate runs/atom runs/dm --networks convnet3,alexnet,vgg11,resnet18,vit --picture m.png"
    "\n  atom-nas evaluate runs/c10 --split validation"
)(sets.evaluate)
app.command(epilog="\b\nExample:\n  atom-nas export runs/digits --to npz --out digits.npz")(sets.export)
app.command(
    epilog="\b\nExamples:"
    "\n  atom-nas push runs/digits ada/digits-atom-ipc10"
    "\n  atom-nas push runs/digits ada/digits-atom-ipc10 --public"
)(sets.push)


@app.command(
    epilog="\b\nExamples:"
    "\n  atom-nas plan --width 0.2"
    "\n  atom-nas plan --width 0.2 --correlation 0.8 --confidence 0.9"
    "\n  atom-nas plan --width 0.2 --agreement 0.8"
    "\n  atom-nas plan --samples 48 --json"
)
@guarded
def plan(
    width: opt.Width = None,
    samples: opt.PlannedSamples = None,
    correlation: opt.Correlations = None,
    confidence: opt.Confidence = 0.95,
    agreement: opt.Agreement = None,
    as_json: opt.AsJson = False,
) -> None:
    """Tell how many architectures and seeds a sound rank correlation takes."""
    from atom_nas.terminal.summary import show_plan

    show_plan(width, samples, correlation, confidence, agreement, as_json=as_json)


@app.command(
    epilog="\b\nExamples:"
    "\n  atom-nas search runs/digits --samples 48 --out runs/search"
    "\n  atom-nas search runs/c10 --strategy evolution --reference none --out runs/evolution"
    "\n  atom-nas search runs/c10 --reference-images 5000 --reference-samples 24 --out runs/c10-search"
    "\n  atom-nas search runs/c10 --out runs/c10-search --resume --confirm 3"
)
@guarded
def search(
    context: typer.Context,
    directory: opt.Synthetic,
    out: opt.RunFolder,
    space: opt.Space = "convnet",
    samples: opt.Samples = None,
    strategy: opt.Strategy = "random",
    architectures: opt.Architectures = None,
    max_parameters: opt.MaxParameters = None,
    max_flops: opt.MaxFlops = None,
    reference: opt.Reference = "real",
    reference_column: opt.ReferenceColumn = "score",
    reference_samples: opt.ReferenceSamples = None,
    reference_images: opt.ReferenceImages = None,
    reference_epochs: opt.ReferenceEpochs = None,
    epochs: opt.ProxyEpochs = None,
    repeats: opt.SearchRepeats = 1,
    unwhiten: opt.Unwhiten = True,
    score: opt.Score = "validation_accuracy",
    combine: opt.CombineScores = "",
    validation_images: opt.ValidationImages = None,
    balanced: opt.Balanced = False,
    confirm: opt.Confirm = None,
    confirm_images: opt.ConfirmImages = None,
    confirm_epochs: opt.ConfirmEpochs = None,
    set_confirm: opt.SetConfirm = None,
    set_: opt.Set = None,
    set_reference: opt.SetReference = None,
    set_space: opt.SetSpace = None,
    set_proxy_space: opt.SetProxySpace = None,
    estimators: opt.Estimators = "",
    set_training_free: opt.SetTrainingFree = None,
    set_strategy: opt.SetStrategy = None,
    trial_limit: opt.TrialLimit = None,
    workers: opt.Workers = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    dataset: opt.Moved = None,
    data_dir: opt.DataDir = None,
    resume: opt.ResumeSearch = False,
) -> None:
    """Sample architectures, train each on the synthetic set, rank them, and report how far to trust it."""
    given = dict(locals())
    from atom_nas.commands.search_fields import FIELDS, search_fields
    from atom_nas.resuming import search_settings
    from atom_nas.terminal.searching import search_and_report

    names = {FIELDS.get(name, name) for name in said(context)}
    settings = search_settings(names, **search_fields(given), command=command_line())
    search_and_report(settings)


@app.command(
    epilog="\b\nExamples:\n  atom-nas report runs/search"
    "\n  atom-nas report runs/search --combine final_training_loss,validation_accuracy,zico"
    "\n  atom-nas report runs/atom runs/dm runs/random --out runs/compared"
)
@guarded
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; several are shown side by side.", metavar="RUN...")
    ],
    score: Annotated[str | None, typer.Option(help="Rank by another recorded score.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to.  [default: the run's report folder; of several runs the first "
            "one's comparison folder]"
        ),
    ] = None,
    combine: opt.Combine = None,
) -> None:
    """Write the report of one run again, or of several side by side."""
    from atom_nas.terminal.stages import show_report

    show_report(runs, score, out, combine)


@app.command(epilog="\b\nExample:\n  atom-nas quickstart --out first-run")
@guarded
def quickstart(
    out: Annotated[Path, typer.Option(help="The folder for the set, the run and its report.")] = Path(
        "quickstart"
    ),
    seed: opt.Seed = 0,
    workers: opt.Workers = None,
    device: opt.Device = "auto",
    resume: opt.Resume = False,
) -> None:
    """Distill, search and report on scikit-learn's digits: the whole path in minutes."""
    from atom_nas.commands.quickstart import distill_plan, search_plan
    from atom_nas.resuming import resumed
    from atom_nas.terminal.searching import search_and_report
    from atom_nas.terminal.stages import show_distill

    if out.exists() and any(out.iterdir()) and not resume:
        begun = (out / "synthetic").is_dir()
        raise ValueError(f"{out} is not empty; name another --out{', or go on with --resume' * begun}")
    show_distill(distill_plan(out, seed=seed, device=device), resume=resume)
    command = command_line()
    settings = search_plan(out, seed=seed, device=device, workers=workers, command=command)
    if (settings.out / "run.json").exists():  # It keeps its settings, whatever recipes say by now.
        set_ = settings.synthetic  # wherever the folder is by now
        settings = resumed(settings.out, synthetic=set_, device=device, workers=workers, command=command)
    search_and_report(settings)


@app.command(epilog="\b\nExample:\n  atom-nas bench --json bench.json --growth growth.png")
@guarded
def bench(
    device: opt.Device = "auto",
    repeats: Annotated[
        int, typer.Option(min=1, help="Training steps and distillation iterations a way; medians count.")
    ] = 7,
    growth: Annotated[
        Path | None,
        typer.Option(
            help="Measure growth to 8 times the classes, images and architectures too, which takes some "
            "minutes more, and draw it to this file (.png or .svg)."
        ),
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file too.")] = None,
) -> None:
    """Measure distillation, proxy training and workers on this machine, against a straightforward script.

    Takes some minutes on two cores, in which nothing else should run; numbers are there at the end.
    """
    from atom_nas.terminal.stages import show_bench

    show_bench(device, repeats, growth, json_)


@app.command("list", epilog="\b\nExamples:\n  atom-nas list methods\n  atom-nas list settings learning_rate")
@guarded
def list_(
    what: Annotated[
        str | None, typer.Argument(help="A topic, as the tables' titles name them; all by default.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="Only what has this in its name or in its table's title, e.g. settings atom."),
    ] = None,
) -> None:
    """Show what there is: datasets, methods, spaces, strategies, estimators, networks, settings, ..."""
    from atom_nas.commands.catalogue import TOPICS, narrowed
    from atom_nas.names import choose
    from atom_nas.terminal.console import table

    chosen = [choose("topic", what, TOPICS)] if what else [topic for topic in TOPICS if topic != "settings"]
    for topic in chosen:
        sheets = TOPICS[topic]()
        for sheet in narrowed(sheets, name) if name else sheets:
            table(sheet.title, sheet.header, sheet.rows)


if __name__ == "__main__":
    main()
