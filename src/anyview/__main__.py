"""``python -m anyview`` is the command line."""

from anyview.cli.main import entry

entry()
