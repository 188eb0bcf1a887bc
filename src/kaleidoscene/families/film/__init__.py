"""FILM: frames between frames, for films that are denser than what was rendered."""

from kaleidoscene.families.film.config import FilmConfig, FilmSettings
from kaleidoscene.families.film.interpolator import Interpolator, load_interpolator
from kaleidoscene.families.film.model import Film
from kaleidoscene.families.film.recipe import RECIPES
from kaleidoscene.families.film.task import FilmTask

__all__ = ["RECIPES", "Film", "FilmConfig", "FilmSettings", "FilmTask", "Interpolator", "load_interpolator"]
