"""The smallest family there can be: every view is the mean of the references, times a colour that is learned."""

import json
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from torch import nn

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.families.family import Family
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.cost import Cost, PlainPlan
from kaleidoscene.rendering.renderer import PlainRenderer, Rendering, check_references
from kaleidoscene.rendering.system import PlainSystem
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import TrainingCost
from kaleidoscene.training.recipe import PlainRecipe
from kaleidoscene.training.task import PlainTask

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
    def render(self, scene, cameras, *, seeds, independent=False, depth=True, on_step=None):
        image = self.model(scene.images).clamp(0, 1)
        return Rendering(image[:, None].expand(-1, cameras.batch_shape[1], -1, -1, -1), cameras)


class MeanSystem(PlainSystem):
    family = "mean"

    def __init__(self, model, image_size):
        self.renderer, self.plan = MeanRenderer(model, image_size), plan(image_size)


class MeanTask(PlainTask):
    family = "mean"

    def __init__(self, settings):
        self.settings, self.model = settings, MeanNetwork()

    def losses(self, views, seed):
        made = self.model(views.images[:, : max(1, views.num_references)])
        return {"loss": (made[:, None] - views.images[:, views.num_references :]).square().mean()}

    def initialise(self, unit):
        for p in unit.parameters():
            nn.init.eye_(p) if p.ndim == 2 else nn.init.ones_(p)

    def system(self, model):
        return MeanSystem(model, self.settings.image_size)


class MeanRecipe(PlainRecipe):
    family = "mean"

    @property
    def plan(self):
        return plan(self.settings.image_size)

    def training_costs(self, placement):
        return [TrainingCost(12, 1000, 1000, 100, 100) for _ in self.batches.shapes]

    def make_task(self, device):
        with torch.device("meta"):
            return MeanTask(self.settings)


def mean_debug():
    """A mean that is trained in a moment."""
    train = TrainConfig(steps=6, workers=0, checkpoint_every=3, precision="fp32", log_every=2)
    return MeanRecipe(settings=MeanSettings(), train=train, data=BatchConfig(batch_size=4))


def plan(image_size):
    def cost(references, targets, size):
        pixels = size[0] * size[1]
        return Cost(12, (references + 18 * targets) * pixels, 12 * (references + targets) * pixels, 0)

    return PlainPlan(tuple(image_size), cost)


def image_size_of(folder):
    return tuple(json.loads((folder / "config.json").read_text())["settings"]["image_size"])


def load(folder, device, precision):
    model = MeanNetwork().to(device)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return MeanSystem(model.eval().requires_grad_(False), image_size_of(folder))


MEAN = Family(
    load=load, plan=lambda folder: plan(image_size_of(folder)), recipe_of=lambda folder: mean_debug(),
    recipes={"mean-debug": mean_debug}, capabilities=CAPABILITIES,
)  # fmt: skip
