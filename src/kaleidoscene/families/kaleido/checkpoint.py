"""Kaleido checkpoints: a folder with config.json and model.safetensors, read strictly."""

from kaleidoscene.families.checkpoints import CheckpointFormat
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.settings import KaleidoSettings

FAMILY = "kaleido"
FORMAT = CheckpointFormat(FAMILY, 1, KaleidoSettings, lambda settings: Kaleido(settings.model))
describe, read_settings = FORMAT.describe, FORMAT.read_settings
load_model, save_model = FORMAT.load_model, FORMAT.save_model
