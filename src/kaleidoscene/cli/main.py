"""The command line: one verb, one file."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import NoReturn

from kaleidoscene.errors import Failed, Interrupted, KaleidosceneError, unknown_name

VERBS = {
    "capture": "photographs, an archive, a film or one picture to a capture with cameras, checked",
    "render": "render new views of a capture",
    "view": "a window in the browser: cameras, new views where one looks, camera paths, clouds, meshes",
    "generate": "draw objects of nothing, each seen from all sides",
    "reconstruct": "a cloud of points with cameras and depth maps, or a textured mesh, from photographs of an object",
    "interpolate": "frames between the frames of a film",
    "train": "train a recipe, or go on with a run",
    "ablate": "run the paper's ablation and set it beside its numbers",
    "evaluate": "score a model or a baseline on a benchmark",
    "bench": "speed and memory of rendering, training, loading and codec on this machine",
    "compare": "set reports side by side, or a mesh or cameras beside true ones",
    "check": "find faults in a capture and draw its cameras",
    "convert": "write a capture in another format, or as training shards",
    "pose": "estimate cameras of photographs",
    "info": "parameters, operations, memory and time of a request, before anything runs",
    "completion": "what a shell offers when TAB is pressed",
    "synthesize": "render training or test scenes ahead",
}

_USAGE = "usage: kaleidoscene VERB [OPTIONS]     (kaleidoscene VERB --help tells its options)\n\n" + "\n".join(
    f"  {verb:<12}{what}" for verb, what in VERBS.items()
)


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except Failed:
        return 1
    except Interrupted as error:
        return error.exit_code
    except KaleidosceneError as error:
        said, code = str(error), 1
    except BrokenPipeError:  # who reads has enough, as 'head' does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        said, code = f"{error.filename2 or error.filename or 'writing'}: {error.strerror or error}.", 1
    except KeyboardInterrupt:
        said, code = "interrupted.", 130
    print(f"kaleidoscene: {said}", file=sys.stderr)
    return code


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help") or argv == ["help"]:
        print(_USAGE)
        return 0 if argv else 2
    if argv[0] in ("--version", "-V"):
        from kaleidoscene import __version__  # noqa: PLC0415  --help and typos must not wait for torch

        print(f"kaleidoscene {__version__}")
        return 0
    if argv[0] == "help":
        argv = [argv[1], "--help"]
    if argv[0] not in VERBS:
        raise unknown_name("verb", argv[0], VERBS)
    importlib.import_module(f"kaleidoscene.cli.{argv[0]}").main(argv[1:])
    return 0


def entry() -> None:
    """Entry point of the installed command."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    try:
        code = main()
    except Exception:  # a fault of ours, memory that ran out on the device, a connection that broke
        if not several:
            raise
        traceback.print_exc()
        code = 1
    if several:
        end_process(code)
    sys.exit(code)


def end_process(code: int) -> NoReturn:
    """End one process of several at once; the connections to the others fall with it and are not closed in order.

    Closing them has aborted a process now and then (see :func:`kaleidoscene.training.distributed.leave_world`), and
    after an error it could wait for processes that are in the middle of something.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
