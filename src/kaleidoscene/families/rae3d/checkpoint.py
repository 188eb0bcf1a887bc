"""3DRAE checkpoints: a folder with config.json and model.safetensors, read strictly."""

from kaleidoscene.families.checkpoints import CheckpointFormat
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.settings import Rae3dSettings

FAMILY = "rae3d"
FORMAT = CheckpointFormat(FAMILY, 1, Rae3dSettings, lambda settings: Rae3d(settings.model))
describe, read_settings = FORMAT.describe, FORMAT.read_settings
load_model, save_model = FORMAT.load_model, FORMAT.save_model
