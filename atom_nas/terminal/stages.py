"""Each stage as a terminal shows it: progress while it runs, its result in a few lines at the end."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atom_nas.terminal.console import clock, progress_bar, say, stdout
from reports.formatting import plural

if TYPE_CHECKING:
    from atom_nas.config import WithPreset
    from atom_nas.evaluation.plan import EvaluationPlan
    from distill.settings import DistillSettings
    from distill.synthetic import SyntheticSet


_KNOWS = 0.15
"""Of the way from guessing a class to always being right: teachers that know something have gone as far."""


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM only raises a flag; the second Ctrl-C stops at once."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping after this iteration; Ctrl-C again stops at once")

    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, ask))
        yield lambda: asked


def show_preset(filled: "WithPreset") -> None:
    """Say what a preset has brought, and what it did not have."""
    for fallback in filled.fallbacks:
        say(fallback)
    if "preset" in filled.values and filled.taken:
        brought = ", ".join(f"{name} {value}" for name, value in sorted(filled.taken.items()))
        say(f"preset {filled.values['preset']}: {brought}")


def show_distill(settings: "DistillSettings", *, resume: bool = False, overwrite: bool = False) -> None:
    """Distill with a bar, and say what came of it."""
    from distill.run import distill

    iterations = settings.config.steps
    # Coresets have no iterations after which to look at a flag: Ctrl-C simply ends them.
    stopping = graceful_stop() if iterations else nullcontext(lambda: False)
    with stopping as should_stop, progress_bar(settings.method, iterations or 1) as bar:
        synthetic = distill(
            settings,
            resume=resume,
            overwrite=overwrite,
            on_stage=say,
            on_progress=lambda p: bar(p.done, f"loss {p.loss:.4f}" if p.loss == p.loss else ""),
            should_stop=should_stop,
        )
    spent = clock(synthetic.card["wall_seconds"])
    images = _images(synthetic)
    part = f", shard {settings.shard}" if settings.shard else ""
    stdout.print(f"{images}{part} in {spent}: {settings.out}", markup=False)


def _images(synthetic: "SyntheticSet") -> str:
    """How many there are, and how many smaller ones each holds where there are any."""
    inside = f", {synthetic.factor**2} in one" if synthetic.factor > 1 else ""
    return f"{len(synthetic.stored)} images ({synthetic.card['ipc']} per class{inside})"


def show_merge(shards: Sequence[Path], out: Path, *, overwrite: bool) -> None:
    """Merge, and say what came of it and what it took."""
    from distill.merging import merge

    whole = merge(shards, out, overwrite=overwrite)
    longest, total = (clock(whole.card[key]) for key in ("longest_wall_seconds", "wall_seconds"))
    images = f"{_images(whole)} of {plural(len(shards), 'shard')}"
    stdout.print(f"{images}, {total} in all and {longest} the longest: {out}", markup=False)


def show_label(
    directory: Path,
    out: Path,
    *,
    options: Mapping[str, Any],
    training: Mapping[str, Any],
    device: str,
    dataset: str | None,
    data_dir: Path | None,
    overwrite: bool,
) -> None:
    """Label with a bar, and say what came of it; says if the machine lacks the precision asked for."""
    from atom_nas.labelling import planned
    from distill.labelling import label
    from distill.synthetic import load

    unlabelled = load(directory)
    settings, resolved, fallback = planned(unlabelled, options, training=training, device=device)
    if fallback:
        say(fallback)
    real = unlabelled.real_dataset(data_dir=data_dir, name=dataset)
    with progress_bar("teachers (epochs)", settings.epochs) as bar:
        made = label(unlabelled, real, out, settings, device=resolved, overwrite=overwrite, on_epoch=bar)
    soft = made.card["soft_labels"]
    known = [each for each in soft["validation_accuracy"] if each is not None]
    accuracy = f", {sum(known) / len(known):.1%} right on held-out images" if known else ""
    guess = 1 / len(made.classes)
    if known and sum(known) / len(known) - guess < _KNOWS * (1 - guess):
        classes = plural(len(made.classes), "class", "classes")
        few = f"teachers are right little more often than by guessing one of {classes}"
        say(f"{few}, so their labels say little: more --epochs may help")
    by = f"{plural(soft['teachers'], 'teacher')}{accuracy}, in {clock(soft['wall_seconds'])}"
    stdout.print(f"soft labels of {_images(made)} by {by}: {out}", markup=False)


def show_push(directory: Path, repo: str, private: bool | None) -> None:
    """Upload, and say where to and who sees it."""
    from atom_nas.hub import push

    pushed = push(directory, repo, private=private)
    seen = "private: its settings page can change that" if pushed.private else "public: everybody sees it"
    say(f"uploaded {', '.join(pushed.files)}")
    stdout.print(f"{pushed.url} ({seen})", markup=False)


def say_unfused(reason: str | None) -> None:
    """Say why training was slower than it could be, if it was."""
    if reason:
        say(f"training ran without fused kernels, so about half as fast: {reason}")


def show_report(
    runs: Sequence[Path], score: str | None = None, out: Path | None = None, combine: str | None = None
) -> None:
    """Write the report, print its essence, and say where it is."""
    from atom_nas.terminal.summary import show_essence
    from reports import write_report

    written = write_report(runs, score=score, out=out, combine=_combined(combine))
    show_essence(written)
    stdout.print(f"report: {written.page}", markup=False)


def _combined(text: str | None) -> Sequence[str] | None:
    """Comma-separated names of scores; () for `none`, None for the default."""
    if text is None or text.strip() == "none":
        return None if text is None else ()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("--combine names no score: give some, comma-separated, or none")
    return names


def evaluation_plan(directories: Sequence[Path], *, networks: str | None, **options: Any) -> "EvaluationPlan":
    """The plan of an evaluation from what was typed; says if the machine lacks the precision asked for.

    `options` are those of `evaluating.planned`.
    """
    from atom_nas.evaluation.evaluating import planned
    from distill.synthetic import load

    names = networks.split(",") if networks is not None else None
    plan, fallback = planned([load(directory) for directory in directories], names, **options)
    if fallback:
        say(fallback)
    return plan


@dataclass(frozen=True, kw_only=True)
class EvaluationOutput:
    """How an evaluation's result is shown.

    Attributes:
        picture: the file of a heat map; none if None.
        as_json: print JSON instead of a table.
    """

    picture: Path | None = None
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.picture:
            require_picture("--picture", self.picture)


def require_picture(option: str, file: Path) -> None:
    """Check, before the work, that a file is one that can be drawn.

    Raises:
        ValueError: if its suffix names no format of ours, or it cannot be written.
    """
    if file.suffix not in (".png", ".svg"):
        raise ValueError(f"{option} draws .png or .svg files, not {file.name!r}")
    require_place(option, file)


def require_place(option: str, file: Path) -> None:
    """Check, before the work, that a file can be written.

    Raises:
        ValueError: if it is a folder, there is no such folder as it is to be in, or that takes no files.
    """
    if file.is_dir():
        raise ValueError(f"{option}: {file} is a folder; name a file")
    if not file.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {file.parent}; make it, or name another")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: the folder {file.parent} cannot be written to; name another")


def show_evaluation(plan: "EvaluationPlan", output: EvaluationOutput, **options: Any) -> None:
    """Evaluate with a bar, and show what came of it; `options` as `evaluation.trainings.carry_out`."""
    from atom_nas.evaluation.tables import as_record, at_chance, matrix, title
    from atom_nas.evaluation.tables import table as rows
    from atom_nas.evaluation.trainings import carry_out
    from atom_nas.names import harmless
    from atom_nas.terminal.console import table
    from distill import kernels
    from reports.chance import how_to_guess, imbalance

    with progress_bar("evaluate (epochs)", plan.total_epochs) as bar:
        found = carry_out(plan, on_epoch=bar, **options)
    if found.reused:
        done = plural(found.reused, "training")
        say(f"done before, and not repeated: {done} (--fresh trains again)")
    say_unfused(kernels.why_unavailable() if plan.device.type == "cpu" else None)
    classes = len(plan.sets[0].classes)
    imbalanced = imbalance(found.guess, found.smallest) if found.smallest and not plan.balanced else None
    if imbalanced:
        say(f"{imbalanced}; --balanced counts all classes alike")
    guessing = how_to_guess(found.guess, classes)
    # Where one class is most of the images, a network that knows the others may be no better than its name.
    for name, sets in () if imbalanced else at_chance(found).items():
        on = f", trained on {', '.join(map(harmless, sets))}," * bool(sets)
        say(f"{name}{on} does no better than {guessing}: more --epochs may help")
    if output.picture:
        from reports.matrix import save_matrix

        save_matrix([(harmless(name), row) for name, row in matrix(found)], title(plan), output.picture)
        say(f"picture: {output.picture}")
    if output.as_json:
        stdout.print_json(json.dumps(as_record(found)))
    else:
        table(title(plan), *rows(found))


def show_bench(device: str, repeats: int, growth: Path | None, record: Path | None) -> None:
    """Measure, write the numbers to `record` and the drawing to `growth` if asked for, and show tables."""
    from atom_nas.bench import SMALLEST, BenchPlan, bench
    from distill.files import write_text
    from distill.settings import resolve_device

    if growth:
        require_picture("--growth", growth)
    if record:
        require_place("--json", record)
    plan = BenchPlan(device=resolve_device(device), repeats=repeats, growth=SMALLEST if growth else None)
    found = bench(plan, tell=lambda text: say(f"measuring {text}"))
    if record:
        write_text(record, json.dumps(found, indent=2) + "\n")
    if growth:
        from reports.growth import save_growth

        save_growth(found["growth"], growth)
    _show_measured(found)


def _show_measured(found: Mapping[str, Any]) -> None:
    from atom_nas.bench import table as ways
    from atom_nas.bench.growth import table as grown
    from atom_nas.bench.profile import table as parts
    from atom_nas.terminal.console import table

    for threads, rates in found["gemm_gflops"].items():
        listed = ", ".join(f"{kind} {rate:.0f}" if rate else f"{kind} fails" for kind, rate in rates.items())
        on = "all threads" if threads == "all" else "one thread"
        stdout.print(f"matrix products, GFLOP/s on {on}: {listed}")
    of = "(times the straightforward way; share of the matrix products' rate)"
    table(f"Training step, an image on one thread {of}", *ways(found["proxy_image_step"], "ms", 1e3))
    table(f"Distillation iteration, all threads {of}", *ways(found["distillation_iteration"], "s", 1.0))
    if found.get("step_profile", {}).get("seconds"):
        profile = found["step_profile"]
        where = f"Where the time of {profile['architecture']} goes, an image of a training step on one thread"
        table(where, *parts(profile["seconds"], profile["images"]))
    if found.get("workers"):
        _show_workers(found["workers"])
    if found.get("growth"):
        table("Growth (from a line: the largest distance from a straight one)", *grown(found["growth"]))


def _show_workers(workers: Mapping[str, Any]) -> None:
    same = "the same scores" if workers["identical"] else "DIFFERENT scores"
    count = max(map(int, workers["seconds"]))
    stdout.print(f"{count} workers: {workers['speedup']:.2f}x one worker, {same}")
    if workers["memory_mb_a_worker"] is not None:
        stdout.print(f"memory: {workers['memory_mb_a_worker']:.0f} MiB more for each further worker")
    stdout.print(f"a trial on a warm worker: {workers['overhead_ms']:.1f} ms besides its own work")
