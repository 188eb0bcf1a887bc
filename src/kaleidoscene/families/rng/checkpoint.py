"""RnG checkpoints: a folder with config.json and model.safetensors, read strictly."""

from kaleidoscene.families.checkpoints import CheckpointFormat
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.settings import RngSettings

FAMILY = "rng"
FORMAT = CheckpointFormat(FAMILY, 1, RngSettings, lambda settings: Rng(settings.model))
describe, read_settings = FORMAT.describe, FORMAT.read_settings
load_model, save_model = FORMAT.load_model, FORMAT.save_model
