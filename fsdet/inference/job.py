"""What `python -m fsdet.predict` does: search every input, write annotated copies and one COCO file.

An input that cannot be decoded is skipped: one bad image does not stop a search of thousands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from fsdet.data.image_set import Array
from fsdet.data.images import count_frames
from fsdet.errors import ConfigError, DataError
from fsdet.files import atomic_path
from fsdet.inference.example import write_example
from fsdet.inference.inputs import find_inputs, find_supports, is_video, read_image
from fsdet.inference.outputs import CocoFile, draw
from fsdet.inference.predictor import EmbeddedSupports, NamedDetections, Predictor, load_predictor
from fsdet.inference.video import VideoWriter, frame_rate, frames_of
from fsdet.progress import progress

RESULTS = "detections.json"
"""Name of the COCO file."""
EXAMPLE = "example"
"""Folder of the example, in that of the results."""


@dataclass
class Search:
    """The detector and the supports of a search, and the highest score so far."""

    predictor: Predictor
    examples: EmbeddedSupports
    score_threshold: float
    highest: float = 0.0
    """Highest score of all candidates, shown or not."""

    def find(self, image: Array) -> NamedDetections:
        """Detections in (H, W, 3) uint8 RGB."""
        every = self.predictor.detect(image, self.examples, 0.0)
        self.highest = max([self.highest, *every.scores.tolist()])
        shown = every.scores >= self.score_threshold
        return NamedDetections(
            every.boxes[shown], every.scores[shown], every.labels[shown], every.names
        )


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search."""

    searched: int
    """Images and videos that were searched."""
    skipped: tuple[str, ...]
    """One line for each input that cannot be searched: the file and the reason."""
    summary: str
    """Where the example and the score threshold come from, if not from the caller; last the outcome in one line."""


def predict(
    checkpoint: Path,
    supports: Sequence[Path],
    images: Sequence[Path],
    out: Path,
    score_threshold: float | None,
    device: str,
) -> Outcome:
    """Search all inputs; `detections.json` is written if any could be searched.

    Args:
        checkpoint: of stage 2 or 3; see `fsdet.checkpoint.lookup.find_checkpoint`.
        supports: see `find_supports`; none for an example of the checkpoint's own dataset.
        images: images, folders of images, videos; none for an example.
        out: folder of the results.
        score_threshold: detections that score less are left out; None for that of the checkpoint.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        FsdetError: a flag, the checkpoint or a support cannot be used, or an input does not exist.
    """
    predictor = load_predictor(checkpoint, device)
    if supports:
        classes, inputs = find_supports(supports), find_inputs(images)
    else:
        make_folder(out)
        example = write_example(predictor.config, out / EXAMPLE)
        classes, inputs = example.supports, example.images
    pairs = list(zip(inputs, output_files(inputs, out), strict=True))
    lowest = predictor.score_threshold if score_threshold is None else score_threshold
    search = Search(predictor, predictor.embed(classes), lowest)
    results = CocoFile(search.examples.names)
    make_folder(out)
    skipped = search_all(search, pairs, results)
    searched = [source for source in inputs if source not in skipped]
    if searched:
        results.write(out / RESULTS)
    lines = [] if supports else [f"example: supports and images in {out / EXAMPLE}"]
    if score_threshold is None:
        lines.append(f"{origin_of_threshold(predictor)}; --score_threshold changes it")
    lines.append(summarize(search, searched, len(results), out))
    lines[-1] += f"; skipped: {len(skipped)}" if skipped else ""
    return Outcome(len(searched), tuple(skipped.values()), "\n".join(lines))


def summarize(search: Search, searched: Sequence[Path], found: int, out: Path) -> str:
    """What was searched and found, in one line; without any detection the highest score."""
    videos = sum(is_video(source) for source in searched)
    names = ", ".join(search.examples.names)
    line = f"images: {len(searched) - videos}, videos: {videos}, detections of {names}: {found}"
    if not found:
        line += f" (highest score: {search.highest:.3f}, below the threshold {search.score_threshold:.3f})"
    return f"{line}, in {out / RESULTS}"


def origin_of_threshold(predictor: Predictor) -> str:
    """The score threshold of a predictor, and where it comes from."""
    if predictor.own_threshold is None:
        return f"score threshold {predictor.score_threshold:.3f}, the default: the checkpoint carries none"
    return f"score threshold {predictor.score_threshold:.3f}, the best on validation (F1)"


def search_all(
    search: Search, pairs: Sequence[tuple[Path, Path]], results: CocoFile
) -> dict[Path, str]:
    """Search all images, then all videos.

    Args:
        search: with the supports.
        pairs: each input with the file of its annotated copy.
        results: takes what is found.

    Returns:
        input that cannot be decoded -> why, in one line.
    """
    images = [pair for pair in pairs if not is_video(pair[0])]
    videos = [pair for pair in pairs if is_video(pair[0])]
    skipped = {}
    for source, target in chain(progress(images, "images") if images else (), videos):
        search_one = search_video if is_video(source) else search_image
        try:
            search_one(search, source, target, results)
        except DataError as error:
            skipped[source] = str(error)
    return skipped


def search_image(search: Search, source: Path, target: Path, results: CocoFile) -> None:
    """Search one image; write its annotated copy."""
    image = read_image(source)
    found = search.find(image)
    results.add(image.shape[:2], found, file_name=str(source))
    with atomic_path(target) as part:
        draw(image, found).save(part, "PNG" if target.suffix == ".png" else "JPEG", quality=95)


def search_video(search: Search, source: Path, target: Path, results: CocoFile) -> None:
    """Search every frame of one video; write its annotated copy."""
    frames = progress(frames_of(source), source.name, total=count_frames(source) or None)
    with VideoWriter(target, frame_rate(source)) as writer:
        for number, frame in enumerate(frames):
            found = search.find(frame)
            results.add(frame.shape[:2], found, file_name=str(source), frame=number)
            writer.write(np.asarray(draw(frame, found)))


def output_files(inputs: Sequence[Path], out: Path) -> list[Path]:
    """A file in `out` for each of the inputs, no two alike.

    Raises:
        ConfigError: one of them would replace an input.
    """
    outputs: list[Path] = []
    for path in inputs:
        suffix = ".mp4" if is_video(path) else ".png" if path.suffix.lower() == ".png" else ".jpg"
        target, number = out / f"{path.stem}{suffix}", 1
        while target in outputs:
            number += 1
            target = out / f"{path.stem}_{number}{suffix}"
        outputs.append(target)
    # pathlib's own method raises for a link to itself
    replaced = {os.path.realpath(path) for path in inputs} & {*map(os.path.realpath, outputs)}
    if replaced:
        raise ConfigError(
            f"out: {min(replaced)} is an input and would be replaced; name another folder"
        )
    return outputs


def make_folder(folder: Path) -> None:
    """Make the folder of the results.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"out: {folder} cannot be created ({error.strerror}); name another folder"
        ) from None
