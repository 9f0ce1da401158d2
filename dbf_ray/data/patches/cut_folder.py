"""A whole folder of images cut into patches: what is done, and what of it a person should know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbf_ray.data.patches.cutting import SplitCounts, SplitSettings, SplitTask, cut_all
from dbf_ray.data.patches.split import SplitWork, prepare_out
from dbf_ray.errors import DataError
from dbf_ray.locks import only_writer
from dbf_ray.machine import usable_cpus
from dbf_ray.progress import Counter

FEW = 64  # patches, which are cut before processes have started
Run = Callable[[list[SplitTask]], Iterable[SplitCounts | DataError]]


@dataclass(frozen=True)
class Cut:
    """What was cut, and how long it took."""

    counts: SplitCounts
    seconds: float


def cut_folder(
    work: SplitWork,
    root: Path,
    out: Path,
    settings: SplitSettings,
    classes: str | Sequence[str] | None = None,
    *,
    run: Run | None = None,
    say: Callable[[str], None],
) -> Cut:
    """Write the patches of ``work`` (:func:`.split.split_work` with the same arguments) into ``out``; what an
    earlier process has done there is kept.

    Args:
        work, root, out, settings, classes: what is cut, and how.
        run: cuts the tasks; None: one process for each CPU, or this one where there are few patches.
        say: takes each line for a person.

    Raises:
        DataError: an image could not be cut; all others are.
        ConfigError: another process is writing there.
    """
    with only_writer(out, "splitting", "give another OUT"):
        removed = prepare_out(work, root, out, settings, classes)
        total = sum(len(task.windows) for task in work.tasks)
        for note in notes_of(work, total, removed):
            say(note)
        counter, counts, failures = Counter(total, "patches"), SplitCounts(), []
        processes = usable_cpus() if total > FEW else 0
        for done in run(work.tasks) if run else cut_all(work.tasks, processes):
            if isinstance(done, SplitCounts):
                counts += done
                counter.add(done.written + done.kept)
            else:
                failures.append(str(done))
                say(f"error: {done}")
    if failures:
        raise DataError(
            f"{len(failures)} of {len(work.tasks)} parts could not be cut, the first: {failures[0]}; all "
            "others are done: mend the data, start again"
        )
    return Cut(counts, counter.seconds)


def notes_of(work: SplitWork, patches: int, removed: int) -> list[str]:
    """What is worth knowing before the cutting begins."""
    notes = [f"{len({task.image for task in work.tasks})} images, {patches} patches"]
    if work.together:
        notes.append(f"note: {', '.join(work.together)} is made of other splits, its images are cut there")
    for folder in sorted({file.parent for file in work.originals}):
        texts = [text for file, text in work.originals.items() if file.parent == folder]
        if not any(texts):
            notes.append(
                f"warning: none of {len(texts)} images of {folder.parent} has an object; dbf prepare-data "
                "check says what is wrong with labels that should have some"
            )
    if removed:
        notes.append(f"note: {removed} patches of images that are gone or have changed are removed")
    if work.lost:
        image, one = work.lost[0]
        notes.append(
            f"note: {len(work.lost)} objects are in no patch, the first is {one.name} in {image.name}"
            + (f", line {one.line}" if one.line is not None else "")
            + ": larger than a window leaves room for, or mostly beyond the image; raise the size of "
            "patches, or lower the share of an object that must be inside"
        )
    return notes
