"""The smallest family there can be: every view is the mean of the references, times a colour that is learned."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.families.family import Family
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.cost import Cost
from kaleidoscene.rendering.renderer import PlainRenderer, Rendering, check_references
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import TrainingCost

CAPABILITIES = Capabilities(needs_cameras=False, estimates_cameras=True, takes_back_views=False, any_lens=True)


@dataclass(frozen=True)
class MeanSettings:
    image_size: tuple[int, int] = (16, 24)


class MeanNetwork(nn.Module):
    other_forwards = ()

    def __init__(self):
        super().__init__()
        self.tint = nn.Parameter(torch.empty(3))  # at the root
        self.layers = nn.ModuleList([nn.Linear(3, 3, bias=False)])

    def units(self):
        return {"layer": self.layers[0]}

    def muon_parameters(self):
        return ["layers.0.weight"]

    def forward(self, images):
        colours = self.layers[0](images.mean(1).movedim(1, -1)).movedim(-1, 1)
        return colours * self.tint[:, None, None]


@dataclass(eq=False)
class MeanScene:
    images: torch.Tensor
    cameras: Cameras

    @property
    def num_references(self):
        return self.images.shape[1]

    @property
    def nbytes(self):
        return self.images.nbytes


class MeanRenderer(PlainRenderer):
    capabilities = CAPABILITIES

    def __init__(self, model, image_size):
        self.model, self.image_size = model, image_size

    def encode(self, images, cameras):
        check_references(images, cameras, self.image_size, needs_cameras=False)
        if cameras is None:  # side by side, two units in front of the origin
            poses = torch.eye(4).repeat(*images.shape[:2], 1, 1)
            poses[..., 0, 3], poses[..., 2, 3] = 0.1 * torch.arange(images.shape[1]), -2.0
            cameras = Cameras.from_field_of_view(poses, 0.857, self.image_size)
        return MeanScene(images, cameras)

    @torch.no_grad()
    def render(self, scene, cameras, *, seeds, independent=False, on_step=None):
        image = self.model(scene.images).clamp(0, 1)
        return Rendering(image[:, None].expand(-1, cameras.batch_shape[1], -1, -1, -1), cameras)


@dataclass(frozen=True, eq=False)
class MeanSystem:
    renderer: MeanRenderer
    family = "mean"
    focal_over_height = 1.0
    method_note = {}  # noqa: RUF012

    @property
    def image_size(self):
        return self.renderer.image_size

    @property
    def image_sizes(self):
        return (self.image_size,)

    def with_image_size(self, image_size):
        return MeanSystem(MeanRenderer(self.renderer.model, image_size))

    def cost(self, references, targets, *, independent=False):
        return MeanPlan(MeanSettings(self.image_size)).cost(references, targets)


@dataclass(frozen=True)
class MeanPlan:
    settings: MeanSettings
    method_note = {}  # noqa: RUF012

    @property
    def image_size(self):
        return self.settings.image_size

    def with_sampling(self, *, steps, guidance):
        if steps is not None or guidance is not None:
            raise ValueError("A mean is not sampled.")
        return self

    def cost(self, references, targets, *, independent=False, precision="fp32", image_size=None):
        pixels = self.image_size[0] * self.image_size[1]
        return Cost(12, (references + 18 * targets) * pixels, 12 * (references + targets) * pixels, 0)


class MeanTask:
    def __init__(self, settings):
        self.settings, self.model = settings, MeanNetwork()

    def losses(self, views, seed):
        n = max(1, views.num_references)
        made = self.model(views.images[:, :n])
        return {"loss": (made[:, None] - views.images[:, views.num_references :]).square().mean()}

    def weight(self, views):
        return float(views.images.shape[0] * (views.images.shape[1] - views.num_references))

    def tokens(self, views):
        return views.images[:, :, 0].numel()

    def initialise(self, unit):
        for p in unit.parameters():
            nn.init.eye_(p) if p.ndim == 2 else nn.init.ones_(p)

    def describe(self):
        return {"family": "mean", "settings": {"image_size": list(self.settings.image_size)}}

    def system(self, model):
        return MeanSystem(MeanRenderer(model, self.settings.image_size))


@dataclass(frozen=True)
class MeanOptions:
    train: TrainConfig
    data: BatchConfig
    synthetic: SyntheticScenes | None


@dataclass(frozen=True)
class MeanRecipe:
    settings: MeanSettings
    train: TrainConfig
    data: BatchConfig
    synthetic: SyntheticScenes | None = None
    family, remark = "mean", ""

    @property
    def batches(self):
        return replace(self.data, image_size=self.settings.image_size)

    @property
    def options(self):
        return MeanOptions(self.train, self.data, self.synthetic)

    def changed(self, options):
        return replace(self, train=options.train, data=options.data, synthetic=options.synthetic)

    @property
    def plan(self):
        return MeanPlan(self.settings)

    def training_costs(self, placement):
        return [TrainingCost(12, 1000, 1000, 100, 100) for _ in self.batches.shapes]

    def identity(self):
        return {}

    def check_start(self, init, *, resumes, has_shards):
        pass

    def check_shards(self, folder, scene):
        pass

    def make_task(self, device):
        with torch.device("meta"):
            return MeanTask(self.settings)

    def read_weights(self, folder):
        return load_file(folder / "model.safetensors")


def mean_debug():
    """A mean that is trained in a moment."""
    train = TrainConfig(steps=6, workers=0, checkpoint_every=3, precision="fp32", log_every=2)
    return MeanRecipe(MeanSettings(), train, BatchConfig(batch_size=4))


def _settings(folder: Path) -> MeanSettings:
    return MeanSettings(tuple(json.loads((folder / "config.json").read_text())["settings"]["image_size"]))


def _load(folder, device, precision):
    model = MeanNetwork().to(device)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return MeanSystem(MeanRenderer(model.eval().requires_grad_(False), _settings(folder).image_size))


MEAN = Family(
    load=_load, plan=lambda folder: MeanPlan(_settings(folder)), recipe_of=lambda folder: mean_debug(),
    recipes={"mean-debug": mean_debug}, capabilities=CAPABILITIES,
)  # fmt: skip
