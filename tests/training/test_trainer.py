"""The training loop: exact resume after a kill, what it writes, what stops it."""

import json
from dataclasses import replace

import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.datasets.batch_config import BatchConfig, Share
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.checkpoint import load_model
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.checkpoint_state import load_training_state as load_state
from kaleidoscene.training.distributed import place
from kaleidoscene.training.ema import Ema
from kaleidoscene.training.health import first_not_finite, top_activations
from kaleidoscene.training.optim import OptimConfig, Optimisers
from kaleidoscene.training.trainer import TrainConfig, Trainer
from kaleidoscene.training.world import World
from tests.conftest import CAUSAL, tiny_config
from tests.datasets.test_training_data import scenes

STEPS = 8


def load_training_state(folder):
    return load_state(folder, World(), dict(make_task().model.named_parameters()))


def make_task(**changes) -> KaleidoTask:
    torch.manual_seed(0)
    settings = KaleidoSettings(
        model=tiny_config(**{**CAUSAL, "latent_channels": 12, "depth": 2, **changes}),
        codec=CodecConfig(factor=2),
        image_size=(6, 10),
    )
    return KaleidoTask(settings, KaleidoLoss(), codec=PixelCodec(2))


def make_trainer(
    folder, run, task=None, *, batch_size=3, masking="scene", world=None, share_counts=None, **changes
) -> Trainer:
    values = dict(
        steps=STEPS, precision="fp32", workers=0, log_every=2, checkpoint_every=3, ema_decay=0.9,
        optim=OptimConfig(learning_rate=3e-3, warmup=2, cooldown=0.3, optimiser="muon", muon_learning_rate=0.01),
    )  # fmt: skip
    more = {name: changes.pop(name) for name in ("force", "rollback", "initial", "resume_from") if name in changes}
    data = {name: changes.pop(name) for name in ("reference_dropout", "damaged_share") if name in changes}
    sampling = ViewSampling(views=4, masking=masking)
    config = BatchConfig(batch_size=batch_size, sampling=sampling, share_counts=share_counts, **data)
    batches = ViewBatches(ShardFolder(folder), config)
    return Trainer(task or make_task(), batches, TrainConfig(**{**values, **changes}), run, world=world, **more)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "shard-000000.tar", [scenes(n) for n in range(6)])
    return folder


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return [(r["step"], r["loss"], r["gradient_norm"]) for r in records(run)]


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(shards, tmp_path, optimiser):
    optim = OptimConfig(learning_rate=3e-3, warmup=2, cooldown=0.3, optimiser=optimiser, muon_learning_rate=0.01)
    make_trainer(shards, tmp_path / "whole", optim=optim).train()
    broken = make_trainer(shards, tmp_path / "broken", optim=optim)
    save = broken._save

    def stop_after_the_second_checkpoint():
        save()
        if broken.step == 6:
            raise KeyboardInterrupt

    broken._save = stop_after_the_second_checkpoint
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    make_trainer(shards, tmp_path / "broken", optim=optim).train()
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    whole, resumed = (load_training_state(list_checkpoints(tmp_path / name)[-1]) for name in ("whole", "broken"))
    for name in ("weights", "average", "optimiser"):
        for key, tensor in getattr(whole, name).items():
            assert tensor.equal(getattr(resumed, name)[key]), (name, key)


def test_the_loss_falls_on_one_batch(shards, tmp_path):
    task = make_task(prediction="data")
    trainer = make_trainer(shards, tmp_path / "run", task, steps=40, optim=OptimConfig(learning_rate=3e-3, warmup=1))
    views = trainer.batches[0]
    before = task.losses(views, 5)["loss"].item()
    for _ in range(40):
        loss = task.losses(views, 5)["loss"]
        loss.backward()
        trainer.optimisers.step()
        trainer.optimisers.zero_grad()
    assert loss.item() < 0.6 * before


def test_metrics_hold_what_the_bar_shows(shards, tmp_path):
    calls, folders = [], []

    def validate(model, pictures):
        folders.append(pictures)
        calls.append(next(model.parameters()).detach().clone())
        return {"psnr_1": 12.5}

    trainer = make_trainer(shards, tmp_path, validate_every=4)
    trainer.validate = validate
    trainer.train()
    found = records(tmp_path)
    assert [r["step"] for r in found] == list(range(1, STEPS + 1))
    assert all({"loss", "gradient_norm", "learning_rate", "seconds"} <= r.keys() for r in found)
    assert found[0].keys() >= {"top_activation/block_00", "top_activation/block_01"}
    assert [r["step"] for r in found if "held_out/psnr_1" in r] == [4, 8]
    assert folders == [tmp_path / "samples" / f"step-{step:08d}" for step in (4, 8)]
    first = next(iter(trainer.ema.state_dict().values()))
    assert calls[-1].equal(first)  # held-out numbers are those of the averaged weights
    assert not next(trainer.model.parameters()).equal(first)


def test_a_checkpoint_renders(shards, tmp_path):
    last = make_trainer(shards, tmp_path).train()
    model, settings = load_model(last)
    assert settings == make_task().settings
    state = load_training_state(last)
    for name, p in model.named_parameters():
        assert p.equal(state.average[name])
    assert len(list_checkpoints(tmp_path)) == 2  # keep_checkpoints


@pytest.mark.parametrize("masking", ["scene", "drop"])
def test_micro_batches_are_the_batch_cut_in_pieces(shards, tmp_path, masking):
    """However a step's batch is cut: the loss and the gradients are those of the whole, ragged scenes or not."""
    results = []
    for parts in (1, 2, 3):
        trainer = make_trainer(shards, tmp_path / str(parts), batch_size=6, masking=masking, accumulate=parts)
        kept = []
        trainer.optimisers.step = lambda kept=kept, model=trainer.model: kept.extend(
            p.grad.clone() for p in model.parameters()
        )
        for step in range(2):
            share = Share(parts=parts)
            record = trainer._step([trainer.batches.part(step, share, part) for part in range(parts)])
            kept.append(torch.tensor(record["loss"]))
        results.append(kept)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-6)


def test_autocast_does_not_cache_the_casts_of_weights(shards, tmp_path):
    """It would keep one of every weight until the pass ends, also where blocks are recomputed."""
    task, seen = make_task(), []
    task.model.register_forward_pre_hook(
        lambda *_: seen.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
    )
    make_trainer(shards, tmp_path, task, precision="bf16", steps=1).train()
    assert seen and set(seen[:1]) == {(True, False)}


def test_compiling_allows_for_all_cases_of_references_and_targets(monkeypatch):
    """PyTorch's own limit is 8, and what comes after it runs uncompiled; a higher one of the user stays."""
    for own in (8, 1000):
        monkeypatch.setattr(torch.compiler.config, "recompile_limit", own)
        task = make_task()
        place(task.model, World(), TrainConfig(compile=True), task.initialise)
        assert torch.compiler.config.recompile_limit == max(own, 64)


def test_bf16_training_stays_close_to_fp32(shards, tmp_path):
    make_trainer(shards, tmp_path / "full").train()
    make_trainer(shards, tmp_path / "half", precision="bf16").train()
    full, half = losses(tmp_path / "full"), losses(tmp_path / "half")
    for (_, a, _), (_, b, _) in zip(full, half, strict=True):
        assert b == pytest.approx(a, rel=0.03)
    assert any(a[1] != b[1] for a, b in zip(full, half, strict=True))


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(shards, tmp_path):
    task = make_task()
    with torch.no_grad():
        task.model.blocks[1].feed_forward.down.weight[0, 0] = float("nan")
    with pytest.raises(KaleidosceneError, match=r"stopped at step 0: .*blocks\.1\.feed_forward\.down"):
        make_trainer(shards, tmp_path, task).train()
    dump = json.loads((tmp_path / "stopped.json").read_text())
    assert dump["places"][0] == "blocks.1.feed_forward.down"


def test_a_gradient_that_is_not_finite_is_traced_to_its_source(shards, tmp_path):
    """Gradients run backwards: the last parameter of the forward order that is bad comes first."""
    task = make_task()
    trainer = make_trainer(shards, tmp_path, task)
    task.model.blocks[0].feed_forward.down.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(
        KaleidosceneError, match=r"gradient norm is (inf|nan); it arose first in blocks\.0\.feed_forward\.down"
    ):
        trainer.train()


def test_parts_that_no_step_has_used_yet_do_not_stop_a_resume(shards, tmp_path):
    """Without references reprojection gets no gradient, and its optimiser has no state to save."""
    options = dict(checkpoint_every=1, optim=OptimConfig(learning_rate=1e-3, warmup=1))
    network = dict(reprojection_depths=5)
    make_trainer(shards, tmp_path, make_task(**network), steps=2, reference_dropout=1.0, **options).train()
    trainer = make_trainer(shards, tmp_path, make_task(**network), steps=4, **options)
    states = trainer.optimisers.tensors()
    assert trainer.step == 2 and states and not any(name.startswith("reprojection.") for name in states)
    trainer.train()
    assert any(name.startswith("reprojection.") for name in trainer.optimisers.tensors())


def test_another_seed_or_a_broken_checkpoint_is_refused(shards, tmp_path):
    make_trainer(shards, tmp_path).train()
    with pytest.raises(KaleidosceneError, match="another recipe: seed was 0, is 1"):
        make_trainer(shards, tmp_path, seed=1)
    with pytest.raises(KaleidosceneError, match="settings.settings.model.registers was 1, is 0"):
        make_trainer(shards, tmp_path, make_task(registers=0))
    make_trainer(shards, tmp_path, steps=50)  # a longer run may go on
    make_trainer(shards, tmp_path, seed=1, force=True)


def test_learning_rate_rises_stays_and_falls():
    config = OptimConfig(warmup=10, cooldown=0.2)
    assert config.factor(0, 100) == pytest.approx(0.1)
    assert config.factor(50, 100) == 1
    assert config.factor(90, 100) == pytest.approx(0.5)
    assert OptimConfig(warmup=10).factor(99, 100) == 1


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    model = make_task().model
    optimisers = Optimisers(model, OptimConfig(optimiser="muon"))
    muon = {id(p) for p in optimisers.all[1].param_groups[0]["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in muon}
    assert names and all(name.startswith("blocks.") and "modulation" not in name for name in names)
    groups = optimisers.all[0].param_groups
    assert len(names) + sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert [(group["weight_decay"], {p.ndim > 1 for p in group["params"]}) for group in groups] == [
        (0.01, {True}), (0.0, {False}),
    ]  # fmt: skip
    optimisers.set_rate(0.5)
    assert [group["lr"] for group in groups] == [5e-5, 5e-5]


def test_average_follows_its_formula():
    model = torch.nn.Linear(2, 2)
    ema = Ema(model, 0.5)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    ema.update(model, step=100)
    torch.testing.assert_close(ema.state_dict()["weight"], start + 0.5)


def test_monitors_see_every_block():
    task = make_task()
    from kaleidoscene.geometry.poses import random_rigid
    from kaleidoscene.nn.positions import ViewPositions

    x, positions = torch.randn(1, 2, 12, 3, 5), ViewPositions.from_poses(random_rigid(1, 2))
    with top_activations(task.model) as top, first_not_finite(task.model) as places:
        task.model(x, torch.tensor([0.5]), positions, 1)
    assert sorted(top) == ["block_00", "block_01"] and min(top.values()) > 0
    assert places == []


def test_monitors_see_compiled_blocks_too():
    """A compiled block does not run hooks that come after its compilation; what it puts out is seen all the same."""
    from kaleidoscene.geometry.poses import random_rigid
    from kaleidoscene.nn.positions import ViewPositions

    task = make_task()
    x, positions = torch.randn(1, 2, 12, 3, 5), ViewPositions.from_poses(random_rigid(1, 2))

    def run():
        return task.model(x, torch.tensor([0.5]), positions, 1)

    with top_activations(task.model) as eager:
        expected = run()
    calls = []
    for block in task.model.blocks:
        inner = block._call_impl
        # Stands where torch.compile puts its own; like it, it takes no notice of new hooks.
        block._compiled_call_impl = lambda *a, inner=inner, **k: calls.append(1) or inner(*a, **k)
    before = [block._compiled_call_impl for block in task.model.blocks]
    with top_activations(task.model) as top:
        assert run().equal(expected)
    assert top == eager and len(calls) == 2
    with first_not_finite(task.model) as places, torch.no_grad():
        next(iter(task.model.blocks[1].parameters())).fill_(float("nan"))
        run()
    assert places and "blocks.1" in places[0] and len(calls) == 2
    assert [block._compiled_call_impl for block in task.model.blocks] == before


@pytest.mark.parametrize("change", [dict(sharding="hybrid"), dict(steps=0), dict(accumulate=0)])
def test_impossible_runs_are_refused(change):
    with pytest.raises(ValueError, match="shard_size|at least 1"):
        replace(TrainConfig(), **change)
