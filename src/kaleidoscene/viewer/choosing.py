"""What is rendered where a page looks: the part of the panel that says by which model, from which views, how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import unknown_name
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.viewer.live import LiveScene
from kaleidoscene.workflows.request import parse_references

Load = Callable[[str], Model]
"""From the name of a model to the model."""
_NARROWEST, _WIDEST = 10.0, 120.0


@dataclass(frozen=True)
class Choice:
    """What somebody chose in the panel.

    Attributes:
        model: Its name.
        references: Views of the capture.
        seed: Any number.
        steps: Of sampling; 0: as many as the model takes by itself.
    """

    model: str
    references: tuple[int, ...]
    seed: int
    steps: int

    def scene(self, before: LiveScene, was: Choice, capture: Capture, load: Load) -> LiveScene:
        """The scene of this choice; what has not changed since ``before`` is not made again.

        Raises:
            KaleidosceneError: There is no such model or view, or the model takes no steps.
        """
        if (self.model, self.references, self.steps) == (was.model, was.references, was.steps):
            return before.with_seed(self.seed)
        model = load(self.model).with_sampling(steps=self.steps or None)
        return LiveScene(model, capture, self.references, self.seed)


class ChoicePanel:
    """Fields of a viser panel.

    Args:
        gui: Of a viser server.
        models: Names to choose from.
        choice: What is chosen at first.
        scene: Of that choice.
        compared: Whether there is something to hold views against.
        fixed: The scene was made before: only the lens can be chosen.
    """

    def __init__(
        self, gui: Any, models: Sequence[str], choice: Choice, scene: LiveScene, *, compared: bool, fixed: bool
    ) -> None:
        self._models = tuple(models)
        self.live = gui.add_checkbox("Render where I look", True)
        self.model = gui.add_dropdown("Model", self._models, initial_value=choice.model, visible=not fixed)
        self.references = gui.add_text("References", ",".join(map(str, choice.references)), visible=not fixed)
        self.steps = gui.add_number(
            "Steps", choice.steps, min=0, max=1000, step=1, visible=not fixed,
            hint="Of sampling; 0: as many as the model takes by itself.",
        )  # fmt: skip
        self.seed = gui.add_number("Seed", choice.seed, min=0, step=1, visible=not fixed)
        self.lens = gui.add_number(
            "Lens, degrees", _degrees(scene), min=_NARROWEST, max=_WIDEST, step=0.1, disabled=not scene.any_lens,
            hint="Field of view from top to bottom, also of keyframes; some models have one.",
        )  # fmt: skip
        self.share = None
        if compared:
            self.share = gui.add_slider(
                "Compare", min=0.0, max=1.0, step=0.01, initial_value=0.5, hint="Left the model, right the other one."
            )
        self.said = gui.add_markdown("")

    def choice(self) -> Choice:
        """What the fields say.

        Raises:
            KaleidosceneError: The model is none of those that are offered, or the references are no list of numbers.
        """
        if self.model.value not in self._models:  # a page may send any text
            raise unknown_name("model", self.model.value, self._models)
        references = tuple(parse_references(self.references.value))
        return Choice(self.model.value, references, int(self.seed.value), int(self.steps.value))

    @property
    def degrees(self) -> float | None:
        """Vertical field of view; None of a model that has one."""
        return None if self.lens.disabled else float(self.lens.value)

    def show(self, choice: Choice) -> None:
        """Have the fields say a choice, after another one that could not be made."""
        self.model.value, self.seed.value, self.steps.value = choice.model, choice.seed, choice.steps
        self.references.value = ",".join(map(str, choice.references))

    def follow(self, scene: LiveScene) -> None:
        """Show the lens of a scene that took the place of another one."""
        self.lens.disabled = not scene.any_lens
        if not scene.any_lens:
            self.lens.value = _degrees(scene)

    def on_change(self, scene: Callable[[], None], look: Callable[[], None]) -> None:
        """What is called when the scene is another one now, and when only what is shown of it is."""
        for handle in (self.model, self.references, self.steps, self.seed):
            handle.on_update(lambda _: scene())
        for handle in (self.live, self.lens):
            handle.on_update(lambda _: look())


def _degrees(scene: LiveScene) -> float:
    return round(math.degrees(field_of_view(float(scene.intrinsics[1, 1]), scene.model.image_size[0])), 1)
