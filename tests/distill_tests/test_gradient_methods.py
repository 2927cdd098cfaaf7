"""The engine that matches gradients: what a plain script gives, cut anywhere, refused where it cannot be."""

import pytest
import torch
from distill_helpers import problem, stops_at
from torch.nn import functional as F

from distill.augment import DSA, draw
from distill.formation import decode
from distill.methods import _gradients, dc, dsa, load
from distill.methods._pixels import draw_batch, initial_state
from distill.networks import convnet
from distill.precision import runs_bfloat16
from distill.seeding import stream
from distill.session import Interrupted, RecordedSession, Session

QUICK = {"iterations": 3, "width": 8, "batch_real": 5, "pixel_steps": 2, "network_epochs": 2}
METHODS = ["dc", "dsa"]
COUNTS = (12, 7, 12, 4)


def run(method: str, session: Session | None = None, *, counts=COUNTS, ipc=2, subset=None, **config):
    module = load(method)
    settings = module.Config(**{**QUICK, **config})
    return module.distill(problem(counts, ipc=ipc, subset=subset), settings, session or Session())


def distances(net, real, synthetic, k):
    """sum over layers and rows of 1 - cosine, one class's gradients by autograd through everything."""
    weights = [p for p in net.parameters() if p.dim() > 1]
    pair = []
    for images, graph in ((real, False), (synthetic, True)):
        loss = F.cross_entropy(net(images), torch.full((len(images),), k))
        pair.append(torch.autograd.grad(loss, weights, create_graph=graph))
    total = 0.0
    for h, g in zip(*pair, strict=True):
        h, g = h.flatten(1), g.flatten(1)
        total = total + (1 - (h * g).sum(1) / (h.norm(dim=1) * g.norm(dim=1) + 1e-6)).sum()
    return total


def scripted(posed, *, iterations, steps, epochs, names, width, batch, factor=1):
    """The method as a plain script: class by class, torch's own optimisers, the same random numbers."""
    start = initial_state(posed, "real", factor).images
    pixels = start.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([pixels], lr=0.1, momentum=0.5)
    labels = torch.arange(len(posed.classes)).repeat_interleave(posed.ipc * factor**2)
    for it in range(iterations):
        generator = stream(posed.seed, "network", it)
        net = convnet(posed.image_shape, len(posed.classes), depth=2, width=width, generator=generator)
        trainer = torch.optim.SGD(net.parameters(), lr=0.01)
        for step in range(steps):
            total = 0.0
            for k, pool in enumerate(posed.pools()):
                generator = stream(posed.seed, "class", it, step, k)
                real = posed.preprocessing(posed.real.images[draw_batch(pool, batch, generator)])
                augmentation = draw(names, generator)
                own = decode(pixels[k * posed.ipc : (k + 1) * posed.ipc], factor)
                total = total + distances(net, augmentation(real), augmentation(own), k)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            for _ in range(epochs if step + 1 < steps else 0):
                trainer.zero_grad()
                F.cross_entropy(net(decode(pixels.detach(), factor)), labels).backward()
                trainer.step()
    return start, pixels.detach()


@pytest.mark.parametrize(
    ("method", "width", "steps", "names", "factor"),
    [
        ("dc", 8, 3, (), 1),
        ("dc", 16, 2, (), 1),
        ("dsa", 8, 1, DSA, 1),
        ("dsa", 16, 1, DSA, 1),
        ("dc", 8, 3, (), 2),
    ],
)
def test_it_is_what_a_plain_script_gives(method, width, steps, names, factor):
    loops = {"steps": steps, "epochs": 3, "names": names, "width": width, "batch": 5}
    start, expected = scripted(problem(COUNTS), iterations=2, factor=factor, **loops)
    found = run(method, iterations=2, pixel_steps=steps, network_epochs=3, width=width, factor=factor)
    assert float((expected - start).norm()) > 1e-3
    assert float((found - expected).norm() / (expected - start).norm()) < 1e-3


def test_the_methods_are_one_code():
    assert torch.equal(run("dsa", augmentation="none"), run("dc"))
    assert not torch.equal(run("dsa"), run("dc"))
    assert dc.condense is dsa.condense


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_goes_down(method):
    class Recording(Session):
        log_every = 1

        def after(self, state, total):
            self.curve = state.curve

    session = Recording()
    settings = {"initialization": "noise", "counts": (12,) * 4, "width": 16, "pixel_steps": 1}
    run(method, session, iterations=40, learning_rate=0.3, **settings)
    losses = [point["loss"] for point in session.curve]
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("stop", "done"), [(1, 0), (2, 1), (3, 1)])
def test_an_interrupted_run_goes_on_to_the_same_bits(method, stop, done, tmp_path):
    with pytest.raises(Interrupted):
        run(method, RecordedSession(tmp_path, {}, resume=False, should_stop=stops_at(stop)))
    seen = []
    resumed = run(method, RecordedSession(tmp_path, {}, resume=True, on_progress=seen.append))
    assert torch.equal(resumed, run(method))
    assert [progress.done for progress in seen] == list(range(done + 1, 4))


def test_how_many_classes_are_computed_together_changes_rounding_only(monkeypatch):
    together = run("dc", iterations=1)
    monkeypatch.setattr(_gradients, "_TOGETHER", {"cpu": 1})
    assert torch.allclose(run("dc", iterations=1), together, atol=1e-4)


def test_training_the_network_on_the_set_matters_and_can_be_left_out():
    assert not torch.equal(run("dc"), run("dc", network_epochs=0))
    once = {"pixel_steps": 1, "iterations": 2}
    assert torch.equal(run("dc", network_epochs=0, **once), run("dc", network_epochs=9, **once))


@pytest.mark.parametrize(
    ("ipc", "loops"),
    [(1, (1, 1)), (9, (1, 1)), (10, (10, 50)), (25, (20, 25)), (50, (50, 10)), (80, (50, 10))],
)
def test_the_papers_loops_follow_from_the_images_per_class(ipc, loops):
    posed = problem((80, 80), ipc=ipc)
    config, _ = dc.Config().suited(posed)
    assert (config.pixel_steps, config.network_epochs) == loops
    config, _ = dc.Config(pixel_steps=3, network_epochs=0).suited(posed)
    assert (config.pixel_steps, config.network_epochs) == (3, 0)


def test_points_are_logged_as_often_as_pixels_move():
    class Recording(Session):
        def after(self, state, total):
            self.curve = state.curve

    session = Recording()
    run("dc", session, iterations=5, pixel_steps=5, network_epochs=0)
    assert [point["iteration"] for point in session.curve] == [2, 4, 5]


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_explodes_names_iteration_and_class(method):
    with pytest.raises(ValueError, match=r"not finite at iteration \d+ \(class class-\d\)"):
        run(method, learning_rate=1e30, iterations=10, pixel_steps=1)


def test_a_network_whose_training_explodes_is_named():
    with pytest.raises(ValueError, match="of the network of iteration 1; a smaller learning_rate or network"):
        run("dc", network_learning_rate=1e30, network_epochs=5)


def test_some_classes_alone_are_refused():
    with pytest.raises(ValueError, match="needs all classes at once"):
        run("dsa", subset=(0, 1))


def test_bfloat16_changes_rounding_only_or_is_refused():
    once = {"iterations": 1, "pixel_steps": 1}
    if not runs_bfloat16(torch.device("cpu")):
        with pytest.raises(ValueError, match="precision=float32"):
            run("dc", precision="bfloat16", **once)
        return
    assert torch.allclose(run("dc", precision="bfloat16", **once), run("dc", **once), atol=0.15)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"iterations": 0}, "iterations must be positive"), ({"momentum": 1.0}, "momentum"),
     ({"depth": -1}, "depth"), ({"precision": "int8"}, "precision must be one of"),
     ({"pixel_steps": 0}, "pixel_steps must be auto or a whole number of at least 1"),
     ({"pixel_steps": "many"}, "not 'many'"),
     ({"network_epochs": -1}, "network_epochs must be auto or a whole number of at least 0"),
     ({"network_learning_rate": float("nan")}, "network_learning_rate must be positive"),
     ({"augmentation": "blur"}, "blur")],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dsa.Config(**wrong)


def test_images_too_small_for_the_depth_are_refused():
    with pytest.raises(ValueError, match="use a shallower one"):
        run("dc", depth=4)
