"""FILM checkpoints: a folder with config.json and model.safetensors, read strictly."""

from kaleidoscene.families.checkpoints import CheckpointFormat
from kaleidoscene.families.film.config import FilmSettings
from kaleidoscene.families.film.model import Film

FAMILY = "film"
FORMAT = CheckpointFormat(FAMILY, 1, FilmSettings, lambda settings: Film(settings.model))
describe, read_settings = FORMAT.describe, FORMAT.read_settings
load_model, save_model = FORMAT.load_model, FORMAT.save_model
