"""Find out what is wrong with a capture's cameras, put right what can be, and write it anew.

    python examples/03_check_and_fix_a_capture.py CAPTURE FIXED

Poses in the wrong convention are converted; frames with faults of their own are left out, and said.
"""

import sys
from dataclasses import replace
from pathlib import Path

import kaleidoscene
from kaleidoscene.captures.checking.conventions import CONVENTIONS
from kaleidoscene.captures.checking.run import check_capture, sound_frames
from kaleidoscene.captures.conversion.tools import to_nerfstudio
from kaleidoscene.folders import whole_folder


def main(path: Path, out: Path) -> None:
    capture = kaleidoscene.scan_capture(path)
    findings = check_capture(capture)
    for finding in findings:
        where = "" if finding.frame is None else f" frame {finding.frame}:"
        print(f"{finding.severity}:{where} {finding.value}. What to do: {finding.remedy}.")
    kept = sound_frames(capture, findings)
    frames = [capture.frames[number] for number in kept]
    if len(frames) < len(capture):
        print(f"left out: frames {sorted(set(range(len(capture))) - set(kept))}")
    kinds = {finding.kind for finding in findings}
    for convention in CONVENTIONS:
        if f"convention-{convention.kind}" in kinds:
            print(f"converted: {convention.text}")
            poses = capture.select(kept).exact_cameras.world_from_cam
            frames = [
                replace(frame, world_from_cam=convention.corrected(pose))
                for frame, pose in zip(frames, poses, strict=True)
            ]
    fixed = replace(capture, frames=tuple(frames), findings=(), centre=None, upward=None)
    errors = [finding for finding in check_capture(fixed) if finding.severity == "error"]
    if errors:
        raise SystemExit(f"still wrong: {errors[0].value}")
    with whole_folder(out, overwrite=False) as folder:
        to_nerfstudio(fixed, folder)
    print(f"wrote {out}: {len(fixed)} frames, no errors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
