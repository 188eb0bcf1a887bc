"""Recipes: the paper's table, stages that follow each other, rows of the ablation."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from kaleidoscene.api import load
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batch_config import Bucket
from kaleidoscene.datasets.buckets import bucket_sizes
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.plan import token_grid
from kaleidoscene.families.kaleido.recipes import RECIPES, KaleidoRecipe, kaleido_debug
from kaleidoscene.families.kaleido.recipes.ablations import ROWS, ablation_recipes, nano_scale, paper_scale
from kaleidoscene.families.kaleido.recipes.paper import ASPECT_RATIOS
from kaleidoscene.families.kaleido.training_cost import training_cost
from kaleidoscene.families.kaleido.video import continue_video
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.nn.windows import Windows
from kaleidoscene.training.cost import Placement
from kaleidoscene.training.run import RunOptions
from kaleidoscene.workflows.training import train
from tests.conftest import randomised, ring
from tests.datasets.test_mixture import video
from tests.datasets.test_training_data import scenes

# Table 5: batch size and thousands of steps; learning rates of appendix B.
TABLE_5 = {
    "small": [(1024, 700), (1024, 300), (256, 100), (256, 100)],
    "medium": [(1024, 700), (1024, 300), (256, 100), (256, 100)],
    "large": [(2048, 700), (2048, 500), (256, 100), (256, 100)],
}
STAGES = ("video", "256", "512", "1024")


@pytest.mark.parametrize("size", sorted(TABLE_5))
def test_the_curriculum_is_that_of_table_5(size):
    for stage, (batch, thousands), rate in zip(STAGES, TABLE_5[size], (1e-4, 1e-4, 1e-5, 1e-5), strict=True):
        recipe = RECIPES[f"kaleido-{size}-{stage}"]()
        batches = {bucket.batch_size for bucket in recipe.data.buckets} or {recipe.data.batch_size}
        assert batches == {batch} and recipe.train.steps == 1000 * thousands
        assert recipe.train.optim.learning_rate == rate and recipe.train.optim.weight_decay == 0.01
        assert recipe.data.sampling == ViewSampling(views=12) and recipe.train.precision == "fp16"
        assert recipe.train.optim.optimiser == "adamw"
    shapes = [bucket.image_size for bucket in recipe.data.buckets]
    assert shapes[0] == (1024, 1024) and len(shapes) == 5 == len(recipe.settings.buckets) + 1
    for shape in shapes:  # windows divide every grid
        assert Windows(token_grid(recipe.settings, shape), recipe.settings.model.window).padding == (0, 0)
    for (height, width), ratio in zip(shapes, (1, 4 / 5, 5 / 4, 16 / 9, 9 / 16), strict=True):
        assert width / height == pytest.approx(ratio, rel=0.035)  # whole windows


@pytest.mark.parametrize("size", sorted(TABLE_5))
def test_stages_share_one_network(size):
    networks = {RECIPES[f"kaleido-{size}-{stage}"]().settings.model for stage in STAGES}
    assert len(networks) == 1
    nano = [RECIPES[f"kaleido-nano-{stage}"]().settings.model for stage in ("video", "3d", "128", "mixed")]
    assert len(set(nano)) == 1


def tiny(stage: KaleidoRecipe, **changes) -> KaleidoRecipe:
    """A stage with the debug network, a few steps and no more views than the test's scenes have."""
    debug = kaleido_debug()
    network = replace(debug.settings.model, latent_channels=12)
    return replace(
        stage,
        settings=replace(stage.settings, model=network, codec=replace(debug.settings.codec, factor=2), **changes),
        data=replace(stage.data, batch_size=4, sampling=ViewSampling(views=4), image_size=None),
        train=replace(debug.train, steps=2, checkpoint_every=2, validate_every=99, workers=0),
        synthetic=None,
    )


def test_weights_pass_through_all_four_stages(tmp_path):
    """Video, 3D, 3D at twice the size, five aspect ratios: each begins with the weights of the one before."""
    square = Cameras.from_field_of_view(ring(5, (32, 32)).world_from_cam, 0.857, (32, 32))
    write_shard(tmp_path / "video" / "shard-000000.tar", [video(n, size=(8, 8)) for n in range(6)])
    stored = [replace(scenes(n, size=(32, 32)), cameras=square) for n in range(6)]
    write_shard(tmp_path / "scenes" / "shard-000000.tar", stored)
    sizes = bucket_sizes(16, ASPECT_RATIOS, multiple=2)
    buckets = tuple(Bucket(image_size=size, batch_size=4, views=4) for size in sizes)
    mixed = tiny(RECIPES["kaleido-nano-mixed"](), image_size=(16, 16), buckets=sizes[1:])
    stages = [
        ("video", tiny(RECIPES["kaleido-nano-video"](), image_size=(8, 8)), "video"),
        ("3d", tiny(RECIPES["kaleido-nano-3d"](), image_size=(8, 8)), "scenes"),
        ("large", tiny(RECIPES["kaleido-nano-128"](), image_size=(16, 16)), "scenes"),
        ("mixed", replace(mixed, data=replace(mixed.data, buckets=buckets)), "scenes"),
    ]
    before = None
    for name, recipe, data in stages:
        options = RunOptions(out=tmp_path / "runs" / name, shards=(str(tmp_path / data),), init=before)
        last = train(recipe, options).checkpoint
        losses = [
            json.loads(line)["loss"] for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()
        ]
        assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)
        before = str(last)
    model = load(before)
    assert model.system.image_sizes == ((16, 16), *sizes[1:])


def test_a_run_may_go_on_from_the_default_weights_with_all_that_they_render_with():
    recipe, shipped = RECIPES["kaleido-nano-default"](), load("default").system.renderer.settings
    assert replace(recipe.settings, held_out_psnr=shipped.held_out_psnr) == shipped
    assert recipe.settings != RECIPES["kaleido-nano-reprojection"]().settings


def test_a_stage_starts_from_exactly_the_weights_it_is_given(tmp_path):
    write_shard(tmp_path / "scenes" / "shard-000000.tar", [scenes(n, size=(8, 8)) for n in range(6)])
    recipe = tiny(RECIPES["kaleido-nano-3d"](), image_size=(8, 8))
    still = replace(recipe, train=replace(recipe.train, optim=replace(recipe.train.optim, learning_rate=0.0,
                                                                      muon_learning_rate=0.0)))  # fmt: skip
    shards = (str(tmp_path / "scenes"),)
    first = train(recipe, RunOptions(out=tmp_path / "a", shards=shards)).checkpoint
    second = train(still, RunOptions(out=tmp_path / "b", shards=shards, init=str(first))).checkpoint
    one, two = load(str(first)), load(str(second))
    for (name, a), (_, b) in zip(
        one.system.renderer.model.named_parameters(), two.system.renderer.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


def test_parts_that_are_new_begin_anew_where_that_is_said(tmp_path):
    write_shard(tmp_path / "scenes" / "shard-000000.tar", [scenes(n, size=(8, 8)) for n in range(6)])
    recipe = tiny(RECIPES["kaleido-nano-3d"](), image_size=(8, 8))
    options = RunOptions(out=tmp_path / "a", shards=(str(tmp_path / "scenes"),))
    first = train(recipe, options).checkpoint
    network = replace(recipe.settings.model, reprojection_depths=5)
    optim = replace(recipe.train.optim, learning_rate=0.0, muon_learning_rate=0.0)
    more = replace(recipe, settings=replace(recipe.settings, model=network), train=replace(recipe.train, optim=optim))
    options = replace(options, out=tmp_path / "b", init=str(first))
    with pytest.raises(KaleidosceneError, match="9 tensors are missing, the first is 'reprojection"):
        train(more, options)
    with pytest.raises(KaleidosceneError, match="'reprojecton': did you mean 'reprojection'"):
        train(more, replace(options, fresh=("reprojecton",)))
    with pytest.raises(KaleidosceneError, match="2 tensors do not belong to this model, the first is 'head.bias'"):
        train(more, replace(options, fresh=("reprojection", "head")))
    with pytest.raises(KaleidosceneError, match="give --init as well"):
        train(more, replace(options, fresh=("reprojection",), init=None))
    second = train(more, replace(options, fresh=("reprojection",))).checkpoint
    before = dict(load(str(first)).system.renderer.model.named_parameters())
    after = dict(load(str(second)).system.renderer.model.named_parameters())
    assert {name.split(".")[0] for name in set(after) - set(before)} == {"reprojection"}
    for name, p in before.items():
        torch.testing.assert_close(after[name], p, rtol=0, atol=1e-6, msg=name)
    assert after["reprojection.log_sharpness"] == 2.5 and after["reprojection.weigh.weight"].std() > 0


def test_video_weights_continue_a_video_and_render_a_pose(tmp_path):
    """One network: frame indices in place of poses, by the cached path as by the joint one."""
    write_shard(tmp_path / "video" / "shard-000000.tar", [video(n, size=(8, 8)) for n in range(6)])
    recipe = tiny(RECIPES["kaleido-nano-video"](), image_size=(8, 8))
    last = train(recipe, RunOptions(out=tmp_path / "run", shards=(str(tmp_path / "video"),))).checkpoint
    renderer = load(str(last)).system.renderer
    randomised(renderer.model)
    frames = torch.rand(1, 3, 3, 8, 8)
    new = continue_video(renderer, frames, 2, clip=8, seeds=[4, 5])
    assert new.shape == (1, 2, 3, 8, 8) and torch.isfinite(new).all()
    renderer = renderer.changed(use_cache=False)
    torch.testing.assert_close(new, continue_video(renderer, frames, 2, clip=8, seeds=[4, 5]), rtol=1e-4, atol=1e-5)
    other = continue_video(renderer, frames.flip(1), 2, clip=8, seeds=[4, 5])
    assert not torch.allclose(new, other)  # the order of the known frames counts
    cameras = ring(5, (8, 8), batch=(1,))
    scene = renderer.encode(frames, cameras[:, :3])
    assert renderer.render(scene, cameras[:, 3:], seeds=[1, 2]).images.shape == (1, 2, 3, 8, 8)


def test_a_student_is_trained_from_the_command_line(tmp_path, capsys):
    """Teacher and student through the same verb; the student's checkpoint samples in its own steps."""
    write_shard(tmp_path / "s" / "shard-000000.tar", [scenes(n, size=(32, 32)) for n in range(8)])
    common = ["train", "kaleido-debug", "--shards", str(tmp_path / "s"), "--train.steps", "2"]
    assert main([*common, "--out", str(tmp_path / "teacher")]) == 0
    student = [*common, "--out", str(tmp_path / "student"), "--distil.steps", "2"]
    assert main(student) == 1
    assert "--distil.teacher" in capsys.readouterr().err
    student += ["--distil.teacher", str(tmp_path / "teacher")]
    assert main(student) == 1
    assert "give --init" in capsys.readouterr().err
    assert main([*student, "--init", str(tmp_path / "teacher"), "--distil.steps", "3"]) == 1
    assert "no part of one of 6" in capsys.readouterr().err
    assert main([*student, "--init", str(tmp_path / "teacher")]) == 0
    assert load(str(tmp_path / "student")).system.method_note["schedule"]["steps"] == 2


def test_rows_of_the_ablation_build_on_each_other():
    recipes = ablation_recipes(paper_scale(), features=True)
    assert [row.decision for row in ROWS if row.chosen] == ["", *"i ii iii iv v vii viii ix x".split()]
    assert recipes["baseline"].settings.model.feed_forward == "gelu"
    assert recipes["gta"].settings.model.feed_forward == "swiglu" and recipes["gta"].settings.model.window == 1
    assert recipes["window-8"].settings.model.window == 8 and recipes["register-1"].settings.model.window == 4
    assert recipes["shift-only"].settings.model.modulation == "shift"
    assert recipes["mode-3"].settings.model.modulation == "full"  # a row that was not chosen leaves no trace
    final, paper = recipes["linear-quadratic"], paper_scale()
    assert final.settings == paper.settings and final.loss == paper.loss and final.data == paper.data
    without = ablation_recipes(nano_scale(), features=False)
    assert not any(recipe.settings.model.feature_channels for recipe in without.values())
    assert len({json.dumps(str(recipe)) for recipe in without.values()}) == len(without) - 2  # (x) differs in its start


def test_ablate_writes_a_table_beside_the_papers_numbers(tmp_path, capsys):
    """Two rows and an inference row at toy size; a second start trains nothing."""
    pytest.importorskip("moderngl")
    from kaleidoscene.captures.conversion.rendered import write_rendered_capture
    from kaleidoscene.experiments.ablation import _digest

    generator = torch.Generator().manual_seed(0)
    for name in ("one", "two"):
        (tmp_path / "held" / name).mkdir(parents=True)
        rgba = torch.randint(0, 256, (25, 32, 32, 4), generator=generator, dtype=torch.uint8).numpy()
        write_rendered_capture(tmp_path / "held" / name, rgba, ring(25, (32, 32)))
    write_shard(tmp_path / "s" / "shard-000000.tar", [scenes(n, views=6, size=(32, 32)) for n in range(16)])
    arguments = [
        "ablate", "--out", str(tmp_path / "out"), "--held-out", str(tmp_path / "held"), "--shards", str(tmp_path / "s"),
        "--steps", "1", "--batch", "4", "--precision", "fp32", "--rows", "swiglu-gqa", "gta", "--seeds", "0", "1",
        "--workers", "0", "--objects", "1", "--sampling-steps", "2",
    ]  # fmt: skip
    assert main(arguments) == 0
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(r["row"], r["seed"]) for r in document["results"]] == [
        ("swiglu-gqa", 0), ("swiglu-gqa", 1), ("gta", 0), ("gta", 1),
    ]  # fmt: skip
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| ii | **gta** |" in table and "| 11.93 | 21.05 | 22.03 |" in table and "+0.80" in table
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000
    capsys.readouterr()
    assert main(arguments) == 0
    assert "==" not in capsys.readouterr().out
    both = ["--rows", "video-100k", "video-200k", "--video-init", str(tmp_path / "out" / "gta-0")]
    assert main([*arguments, *both]) == 1
    assert "1 runs for 2 rows (video-100k, video-200k)" in capsys.readouterr().err
    assert main([*arguments, "--rows", "gtaa"]) == 1
    assert "gta" in capsys.readouterr().err
    # Runs of several calls stand in one table if they are of one recipe and one set of captures.
    assert main([*arguments, "--seeds", "1"]) == 0
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["seeds"] == [0, 1] and len(document["results"]) == 4
    assert main([*arguments, "--rows", "uniform", "--seeds", "2", "--steps", "3"]) == 1
    assert "of another recipe than this call's" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == document
    assert not (tmp_path / "out" / "uniform-2").exists()  # it was said before anything was trained
    _digest.cache_clear()
    shutil.copy(tmp_path / "held" / "one" / "images" / "020.png", tmp_path / "kept.png")
    shutil.copy(tmp_path / "held" / "one" / "images" / "000.png", tmp_path / "held" / "one" / "images" / "020.png")
    assert main(arguments) == 1
    assert "of another set of captures than this call's" in capsys.readouterr().err
    shutil.copy(tmp_path / "kept.png", tmp_path / "held" / "one" / "images" / "020.png")
    _digest.cache_clear()
    write_shard(tmp_path / "t" / "shard-000000.tar", [scenes(n, views=6, size=(32, 32)) for n in range(17)])
    assert main([*arguments, "--rows", "uniform", "--seeds", "1", "--shards", str(tmp_path / "t")]) == 1
    assert "of other shards than those of the same seed" in capsys.readouterr().err


def test_ablate_is_one_process(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "held").mkdir()
    assert main(["ablate", "--out", str(tmp_path / "out"), "--held-out", str(tmp_path / "held")]) == 1
    assert "kaleidoscene ablate is one process" in capsys.readouterr().err


def test_info_tells_what_training_takes(capsys):
    arguments = ["info", "kaleido-large-video", "--training.processes", "512", "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["training"]
    assert said["tokens"] == 2048 * 12 * 256
    # 6 operations a weight and token, but for those of AdaLN, which act once a view; attention comes on top.
    network = 40 * (2 * 2.5 * 1792**2 + 3 * 1792 * 4864)
    assert 1.0 < said["flops"] / (6 * network * said["tokens"]) < 1.1
    assert said["days"] == pytest.approx(said["flops"] * 700_000 / (512 * 989e12 * 0.4) / 86400)
    for size, processes in (("small", 8), ("medium", 8), ("large", 256)):
        for stage in STAGES:
            assert main(["info", f"kaleido-{size}-{stage}", "--training.processes", str(processes)]) == 0
            assert "too large" not in capsys.readouterr().out, "fits 80 GiB as the documents start it"
    assert main(["info", "kaleido-medium-video", "--training.memory", "24"]) == 0
    assert "too large      for 24 GiB" in capsys.readouterr().out
    assert main(["info", "kaleido-large-1024", "--training.processes", "512"]) == 1
    assert "must be a multiple of 512" in capsys.readouterr().err
    spread = ["--training.processes", "512", "--training.view-parallel", "2"]
    assert main(["info", "kaleido-large-1024", *spread]) == 0  # half of the views of a scene on each of two
    assert "1 micro-batches of 1 a process, the views of each over 2 processes" in capsys.readouterr().out
    for processes in (1, 64):  # the documented commands start: micro-batches fit whatever the number of GPUs
        for name in ("kaleido-small-256", "kaleido-small-512", "kaleido-ablation-ii-gta"):
            assert main(["info", name, "--training.processes", str(processes)]) == 0
    capsys.readouterr()
    assert main(["info", "kaleido-smal-256"]) == 1
    assert "kaleido-small-256" in capsys.readouterr().err


def test_the_memory_of_training_is_about_what_was_measured():
    """benchmarks/kaleido_small.md: 7189 MiB at the peak, 2409 before, gradients of 566.6 million parameters."""
    config = RECIPES["kaleido-small-256"]().settings.model
    cost = training_cost(
        config, 566_600_000, views=3.0, batch=1, grid=(16, 16), placement=Placement(1, 1, 1, False, half=True)
    )
    measured = (7189 - 2409) * 2**20 - 4 * 566_600_000
    assert cost.activation_bytes == pytest.approx(measured, rel=0.1)
    many = training_cost(
        config, 566_600_000, views=3.0, batch=4, grid=(16, 16), placement=Placement(2, 2, 2, False, half=True)
    )
    gathered = 2 * 4 * 566_600_000 / config.depth
    assert many.activation_bytes - cost.activation_bytes == pytest.approx(4 * 566_600_000 + gathered, rel=1e-6)


def test_nano_stages_render_what_they_need_or_say_so(tmp_path, capsys):
    assert main(["train", "kaleido-nano-video", "--out", str(tmp_path / "run")]) == 1
    assert "give --shards" in capsys.readouterr().err
    mixed = RECIPES["kaleido-nano-mixed"]()
    assert isinstance(mixed.synthetic, SyntheticScenes)
    for bucket in mixed.data.buckets:
        assert all(side <= stored for side, stored in zip(bucket.image_size, mixed.synthetic.image_size, strict=True))
