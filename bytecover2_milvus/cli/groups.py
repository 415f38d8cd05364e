"""``groups``: the tracks of a collection that are one work."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..terminal import progress_bar, say
from .confirm import confirm, yes_option
from .milvus_target import MilvusTarget, collection_option, milvus_options, open_milvus
from .options import bundle_option
from .output import print_json
from .tables import listing_options, print_table

if TYPE_CHECKING:
    from ..alignment.verdict import Verdict
    from ..embedding.contract import Contract
    from ..groups.find import Groups
    from ..milvus.collection import TrackCollection

SHOWN = 20  # groups of the table on stdout
WORDS = {
    "copy": "read tracks",
    "search": "search candidates",
    "align": "align pairs",
    "judge": "judge pairs",
    "group": "group",
    "explain": "find evidence",
}


@click.command()
@milvus_options
@collection_option
@bundle_option
@click.option(
    "--out",
    "outs",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="File to write: .jsonl, .csv, .m3u8 for a playlist, or .html for a page with players; may be repeated.",
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that a run goes on from; the default is COLLECTION.groups.sqlite beside the output.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 1_000),
    default=20,
    show_default=True,
    help="Nearest tracks that each track is compared with.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Least probability of two tracks that are linked, and of a group on average.",
)
@click.option("--write-work-ids", is_flag=True, help="Give tracks without a work_id that of their group, after asking.")
@click.option("--overwrite", is_flag=True, help="With --write-work-ids: tracks that have another work_id get it, too.")
@yes_option
@listing_options("one object per group.")
def groups(
    milvus: MilvusTarget,
    collection: str,
    bundle: Path | None,
    outs: tuple[Path, ...],
    state: Path | None,
    candidates: int,
    min_probability: float,
    write_work_ids: bool,
    overwrite: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Find the tracks of a collection that are one work, and those of them that are one recording.

    Every track is compared with its nearest by the alignment of their tunes. The state holds what was compared: the
    same command goes on where it was stopped, and later compares what is new. The exit code is 1 if the chroma of a
    track is damaged.

    \b
    Example:
      bytecover2-milvus groups --out works.jsonl --out works.html --uri bytecover2.db
    """
    from ..atomic import check_writable
    from ..errors import CollectionError
    from ..groups.find import find_groups
    from ..milvus.collection import TrackCollection
    from ..pages.group_files import WRITERS, lines_of

    if overwrite and not write_work_ids:
        raise click.UsageError("--overwrite needs --write-work-ids")
    for out in outs:
        if out.suffix not in WRITERS:
            raise click.UsageError(f"--out {out}: its name must end in {', '.join(WRITERS)}")
        check_writable(out)
    state = state or (outs[0].parent if outs else Path()) / f"{collection}.groups.sqlite"
    contract, verdict = _second_stage(bundle)
    with open_milvus(milvus, reads=not write_work_ids) as client, progress_bar("groups", None) as bar:
        covers = TrackCollection.open(client, collection, contract.model_id)
        if lack := covers.why_no_second_stage(contract):
            raise CollectionError(lack)

        def watch(step: str, done: int, total: int) -> None:
            bar.update(completed=done, total=total, note=WORDS[step])

        with find_groups(
            covers,
            verdict,
            contract.frame_s,
            state,
            candidates=candidates,
            min_probability=min_probability,
            watch=watch,
        ) as found:
            for out in outs:
                WRITERS[out.suffix](found, out, collection)
            if as_json:
                for line in lines_of(found):
                    print_json(line)
            elif not outs:
                _print(found)
            _tell(found, collection)
            if write_work_ids:
                _write_work_ids(covers, found, overwrite=overwrite, ask=not yes)
            say(f"{state} has what was compared; delete it if you do not want to go on from it")
    if found.damaged:
        sys.exit(1)


def _second_stage(bundle: Path | None) -> tuple[Contract, Verdict]:
    """Contract and verdict of a bundle.

    Raises
    ------
    BundleError
        If it has no note map or no calibration.
    """
    from ..embedding.bundle import default_bundle, open_bundle
    from ..errors import BundleError

    opened = open_bundle(bundle or default_bundle())
    contract, verdict = opened.contract, opened.calibration
    if contract.chroma is None or verdict is None:
        lacks = (
            "no calibration for this alignment, and so no verdict"
            if contract.chroma
            else "no note map, and so no second stage"
        )
        raise BundleError(f"{opened.path}: it has {lacks}; name another bundle with --bundle")
    return contract, verdict


def _write_work_ids(covers: TrackCollection, found: Groups, *, overwrite: bool, ask: bool) -> None:
    """Give tracks the work_id of their group, and tell how many rows have changed; the user may be asked first."""
    from ..groups.work_ids import count_changes, write_work_ids

    changes = count_changes(covers, found, overwrite=overwrite)
    kept = f"; {changes.kept} tracks keep another work_id than their group's" if changes.kept else ""
    if changes.rows and ask:
        confirm(f"Write work_ids into {changes.rows} rows of {changes.tracks} tracks{kept}?")
    say(f"{write_work_ids(covers, found, overwrite=overwrite)} rows have a new work_id{kept}")


def _tell(found: Groups, collection: str) -> None:
    """Print how many tracks were compared, which were not and why, and how many works were found."""
    say(f"{found.compared} tracks of {collection} compared in {found.pairs} pairs")
    if found.without_chroma:
        say(f"{found.without_chroma} tracks have no chroma and were not compared; `collections promote {collection}`")
    if found.too_short:
        say(f"{len(found.too_short)} tracks are too short to be aligned: {', '.join(found.too_short[:5])}, ...")
    for reason in found.damaged.values():
        say(f"failed: {reason}")
    say(f"{found.n_groups} works with {found.n_tracks} tracks")


def _print(found: Groups) -> None:
    """The largest groups as a table."""
    rows = []
    for number, group in enumerate(islice(found, SHOWN), 1):
        recordings = max(track.recording for track in group.tracks)
        title = next((track.title for track in group.tracks if track.title), group.tracks[0].track_id)
        rows.append([number, len(group.tracks), recordings, group.work_id, title])
    print_table(("group", "tracks", "recordings", "work_id", "title"), rows)
    if found.n_groups > SHOWN:
        say(f"the {SHOWN} largest of {found.n_groups}; --out FILE or --json gives all")
