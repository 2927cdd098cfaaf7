"""The options of the commands: name, help and bounds; first those that several share."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

Synthetic = Annotated[Path, typer.Argument(help="A synthetic set.", metavar="DIR")]
Seed = Annotated[int, typer.Option(min=0, help="Names every random number; the same seed, the same result.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where downloaded datasets are kept; the user's cache folder by default.")
]
Moved = Annotated[
    str | None,
    typer.Option("--dataset", help="Where the real data is now, if not where the set's card says."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")]
ResumeDistill = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the unfinished run in --out; without --dataset its settings are as they were, and "
        "only --data-dir, --device and what watches it are to be said anew.",
    ),
]
ResumeSearch = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the run in --out; what is not said anew is as it was said there."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes; results do not depend on it.  [default: all cores; on a GPU at most 4, and one for "
        "every 2 GiB that are free on it]",
    ),
]
TrainingWorkers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Networks to train side by side; results do not depend on it.  [default: all cores, 1 on a GPU]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting, repeatable; see 'atom-nas list settings'."
    ),
]


def count(text: str) -> typer.models.OptionInfo:
    """An optional number of things, at least one."""
    option: typer.models.OptionInfo = typer.Option(min=1, help=text)
    return option


def quantity(text: str) -> float:
    """A number, with k, M or G for thousands, millions or billions of it.

    Raises:
        typer.BadParameter: it is none.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no number such as 500000, 500k, 1.5M or 2G")
    return float(Decimal(found[1].replace(",", "")) * _FACTORS[found[2]])


_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_QUANTITY = re.compile(r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE]\d{1,2})?)([kKMGB]?)", re.ASCII)

# Of `distill`.
SetFolder = Annotated[Path | None, typer.Option(help="The folder to write the synthetic set to.  [required]")]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="A dataset's name ('atom-nas list datasets'), or folder:PATH of your own images: PATH/CLASS/*, "
        "or PATH/train/CLASS/* with test/ or val/.  [required]"
    ),
]
Method = Annotated[str | None, typer.Option(help="See 'atom-nas list methods'.  [default: atom]")]
Preset = Annotated[
    str | None,
    typer.Option(help="Settings that belong together; see 'atom-nas list presets'. Options win."),
]
Ipc = Annotated[int | None, typer.Option(help="Synthetic images per class.  [default: 10]")]
Iterations = Annotated[
    int | None,
    typer.Option(
        help="Networks that matching methods draw; 20000 in the papers, 1000 for dc, dsa and cafe.  "
        "[default: 1000]"
    ),
]
DistillSeed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Names every random number.  [default: 0]")
]
Zca = Annotated[
    bool | None,
    typer.Option("--zca/--no-zca", help="Whiten the images; on for CIFAR by default, as in the papers."),
]
ImageSize = Annotated[
    int | None, typer.Option(help="Side that images of folder:PATH and tinyimagenet are resized to.")
]
Config = Annotated[
    Path | None,
    typer.Option(help="A YAML file of settings, required ones too; options and --set override it."),
]
Tensorboard = Annotated[
    str | None,
    typer.Option(
        metavar="[DIR]",
        help="Write losses and images for TensorBoard, to OUT/tensorboard or to a folder of its own; "
        "needs pip install 'atom-nas[tensorboard]'.",
    ),
]
ImagesEvery = Annotated[
    int | None,
    count("Iterations between two grids of images in TensorBoard.  [default: a tenth of --iterations]"),
]
EvaluateEvery = Annotated[
    int | None,
    count(
        "Iterations between two short trainings on the images so far, scored on held-out validation "
        "images into OUT/evaluations.jsonl; the set stays the same, and its seconds do not count them.  "
        "[default: never]"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="INDEX/COUNT",
        help="Distill one part of the classes, e.g. 2/8, on a machine of its own; 'atom-nas merge' puts "
        "the parts together.",
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--no-deterministic",
        help="Compute class after class: merged shards are to the bit what one process gives. Without it "
        "they differ from that in rounding.",
    ),
]

# Of `label`.
LabelledFolder = Annotated[Path, typer.Option("--out", help="The folder to write the labelled set to.")]
Teachers = Annotated[
    int, typer.Option(min=1, help="Networks whose predictions are averaged; they differ in their seed.")
]
TeacherNetwork = Annotated[
    str | None,
    typer.Option(help="See 'atom-nas list networks'; the ConvNet that fits the images by default."),
]
TeacherEpochs = Annotated[
    int | None, count("Passes of a teacher over the real images that are not held out.  [default: 5]")
]
Temperature = Annotated[
    float, typer.Option(help="By which the teachers' logits are divided; more of it makes labels softer.")
]
HardShare = Annotated[
    float, typer.Option(help="How much of each label stays the image's own class, from 0 to below 1.")
]

# Of `evaluate`.
Directories = Annotated[
    list[Path],
    typer.Argument(help="Synthetic sets; several, of one dataset, are shown side by side.", metavar="DIR..."),
]
Networks = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated, see 'atom-nas list networks', or FILE.py:FUNCTION of your own; the ConvNet "
        "that fits the images by default."
    ),
]
Repeats = Annotated[int, typer.Option(min=1, help="Networks to train of each kind.")]
TrainingEpochs = Annotated[
    int | None,
    count("Passes over the synthetic set; 1,000 in DM's paper, 1,800 in DataDAM's.  [default: 300]"),
]
SplitName = Annotated[
    str,
    typer.Option(help="test, or validation: the real images that the sets hold out, for tuning settings."),
]
Baseline = Annotated[bool, typer.Option("--baseline/--no-baseline", help="Also train on random real images.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again what was done before.")]
Picture = Annotated[
    Path | None,
    typer.Option(help="Draw sets by networks as a heat map to this file (.png or .svg)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# Of `plan`.
Width = Annotated[
    float | None, typer.Option(help="How wide the interval may be, from its low to its high end, e.g. 0.2.")
]
PlannedSamples = Annotated[
    int | None, typer.Option("--samples", help="The other way round: the interval that this many give.")
]
Correlations = Annotated[
    list[float] | None,
    typer.Option(
        "--correlation",
        metavar="RHO",
        help="The true Spearman to assume of one training of each, repeatable.  [default: 0, 0.3, 0.5, 0.6, "
        "0.7, 0.8, 0.9; those that --agreement allows]",
    ),
]
Confidence = Annotated[float, typer.Option(help="How often the interval should hold the truth.")]
Agreement = Annotated[
    float | None,
    typer.Option(
        metavar="RHO",
        help="Spearman of two rankings by one training each that differ in the seed alone: plan for several "
        "trainings of each architecture, too. The report of a search of 10 architectures or more with "
        "--repeats ends with this command.",
    ),
]

# Of `search`.
RunFolder = Annotated[Path, typer.Option(help="The run's folder.")]
Space = Annotated[
    str,
    typer.Option(
        help="See 'atom-nas list spaces'; or a ModelSpace of NNI's that you wrote, by FILE.py:CLASS or "
        "module:CLASS."
    ),
]
Samples = Annotated[int | None, count("Architectures to rank.  [default: 48, or all of --architectures]")]
Strategy = Annotated[str, typer.Option(help="See 'atom-nas list strategies'.")]
Architectures = Annotated[
    Path | None,
    typer.Option(
        help="CSV with a column 'architecture', all of the space: rank these, or, with --samples, what "
        "the strategy draws among them."
    ),
]
MaxParameters = Annotated[
    float | None,
    typer.Option(
        parser=quantity,
        metavar="N",
        help="Rank no network with more trainable parameters, e.g. 500k or 1.5M; larger ones of "
        "--architectures are left out.  [default: none]",
    ),
]
MaxFlops = Annotated[
    float | None,
    typer.Option(
        parser=quantity,
        metavar="N",
        help="Rank no network with more operations in an image's forward pass, e.g. 50M; a multiply-add "
        "counts as two.  [default: none]",
    ),
]
Reference = Annotated[
    str,
    typer.Option(
        help="real (train on real data), none, or a CSV with columns architecture, score; it may hold "
        "more than the space."
    ),
]
ReferenceColumn = Annotated[
    str, typer.Option(help="The column of the reference's CSV that holds the scores; higher is better.")
]
ReferenceSamples = Annotated[int | None, count("Train the reference of this many only.  [default: all]")]
ReferenceImages = Annotated[int | None, count("Real images to train the reference on.  [default: all]")]
ReferenceEpochs = Annotated[int | None, count("Epochs of the reference.  [default: 30]")]
ProxyEpochs = Annotated[
    int | None,
    count("Epochs on the synthetic set.  [default: of the space's recipe ('atom-nas list recipes')]"),
]
SearchRepeats = Annotated[
    int,
    typer.Option(
        min=1,
        show_default=False,
        help="Times each architecture is trained on the synthetic set, by as many seeds; scores are means.  "
        "[default: of the space's recipe, else 1]",
    ),
]
Score = Annotated[
    str,
    typer.Option(
        show_default=False,
        help="The score to rank by, or mean_of_ranks, of those of --combine.  [default: of the space's "
        "recipe, else validation_accuracy]",
    ),
]
CombineScores = Annotated[
    str,
    typer.Option(
        "--combine",
        metavar="A,B,...",
        help="Scores of which --score mean_of_ranks takes the mean of an architecture's ranks, NAME=3 to "
        "count one three times; training-free ones are measured then, your own if --estimators names them. "
        "Strategies learn from the first that comes of training; those that stop trainings early go on by "
        "the mean.",
    ),
]
Unwhiten = Annotated[
    bool,
    typer.Option(
        "--unwhiten/--no-unwhiten",
        help="Of a whitened set (ZCA) train on the images as they were before, and on real ones that are not "
        "whitened: whitening is for accuracy, and harms the ranking.",
    ),
]
ValidationImages = Annotated[int | None, count("Real images to score on.  [default: all held out]")]
Balanced = Annotated[
    bool,
    typer.Option(
        "--balanced",
        help="Balanced accuracies: the mean over classes of the share that is right of each, so that classes "
        "of few images count as much as the others.",
    ),
]
TrialLimit = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="An architecture that takes longer, all its trainings as the proxy together, counts as failed: "
        "for candidates that may hang. Generous, or results depend on the machine.  [default: none]",
    ),
]
Confirm = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Then train the best K on the real training images and keep their weights: the final models.",
    ),
]
ConfirmImages = Annotated[int | None, count("Real images of these trainings.  [default: all]")]
ConfirmEpochs = Annotated[int | None, count("Epochs of these trainings.  [default: 100]")]
SetConfirm = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A training setting of --confirm, repeatable."),
]
SetReference = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A training setting of the reference, repeatable."),
]
SetSpace = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Narrow the space, e.g. 'width=[32, 64]', or give its constructor an argument, repeatable.",
    ),
]
SetProxySpace = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Train smaller networks of the same architectures as the proxy, by an argument of the space's "
        "constructor, e.g. cells=1; reference and final models are built as the space says.  Repeatable.",
    ),
]
Estimators = Annotated[
    str,
    typer.Option(
        help="Estimators to compare, comma-separated: early-stopping, training-free ones, or training-free "
        "for all of those; see 'atom-nas list estimators'. Or a function that you wrote, by "
        "FILE.py:FUNCTION or module:FUNCTION."
    ),
]
SetTrainingFree = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="What training-free estimators look at: images=real for a minibatch of real images in place of "
        "synthetic ones, batch_size=128 for a larger one.  Repeatable.",
    ),
]
Combine = Annotated[
    str | None,
    typer.Option(
        metavar="SCORES",
        help="Recorded scores to combine to further rulers, comma-separated, NAME=3 to count one three times "
        "in the mean of ranks; none: none.  [default: "
        "final_training_loss, validation_accuracy, and synflow and naswot where recorded]",
    ),
]
SetStrategy = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the strategy, repeatable.")
]
