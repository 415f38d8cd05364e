"""``evaluate``: metrics of a collection by its own labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal import progress_bar, say
from .milvus_target import MilvusTarget, collection_option, milvus_options, open_milvus
from .options import bundle_option
from .output import print_json
from .tables import listing_options, print_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..manifest import Track
    from ..metrics import Evaluation
    from ..milvus.collection import TrackCollection
    from ..milvus.evaluate import StoredTracks
    from ..second_stage.judgements import Judgements, Thresholds
    from ..second_stage.survey import Survey


@click.command()
@milvus_options
@collection_option
@bundle_option
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="Evaluate these tracks only, with these work_ids and roles."
)
@click.option("--whole", is_flag=True, help="Compare whole tracks only, as if there were no segments.")
@click.option(
    "--rerank",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of the closest tracks of each query that the second stage aligns and judges; each takes milliseconds.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page to write as well: works, score distributions, calibration, and the worst queries with players.",
)
@listing_options("one object.")
def evaluate(
    milvus: MilvusTarget,
    collection: str,
    bundle: Path | None,
    manifest: Path | None,
    whole: bool,
    rerank: int,
    page: Path | None,
    as_json: bool,
) -> None:
    """Score a collection by its labels. Every track whose work is known, and has another track there, is a query.

    A column role of --manifest says which tracks only ask (query) or are only found (gallery).

    MAP, MR1 and P@10 are computed exactly from the stored embeddings, not from what the index finds. Where tracks are
    stored in segments too, a query is a whole track, and the closest row of each other track counts.

    With --rerank they are those of both stages, from what is stored. It tells, too, how often a verdict is right:
    precision and recall at several probabilities, the probabilities that give a precision of 0.9 and 0.99, and the
    equal error rate. --html writes all this as a page, with the queries that went wrong.

    \b
    Example:
      bytecover2-milvus evaluate --uri bytecover2.db --collection tracks --rerank 100
    """
    from ..atomic import check_writable
    from ..manifest import read_manifest
    from ..milvus.collection import TrackCollection
    from ..milvus.schema import WHOLE_TRACKS
    from ..second_stage.survey import Survey

    if page:
        check_writable(page)
    tracks = read_manifest(manifest) if manifest else []
    with open_milvus(milvus, reads=True) as client:
        covers = TrackCollection.open(client, collection)
        judge = _judgements(covers, bundle, rerank) if rerank else None
        stored = covers.fetch(WHOLE_TRACKS if whole else "")
        if tracks:
            stored = _only(stored, tracks, str(manifest), collection)
        survey = Survey(judge)
        try:
            first = stored.evaluate(None if judge or not page else survey)
            if judge:
                with progress_bar("evaluate", first.queries) as bar:

                    def judged(*arguments: Any) -> NDArray[np.floating]:
                        bar.update(advance=1)
                        return survey(*arguments) if page else judge(*arguments)

                    both = stored.evaluate(judged)
        except ValueError as error:
            raise click.ClickException(f"{collection}: {error}") from error
        verdicts = judge.thresholds() if judge else None
        if page:
            _write_page(page, collection, covers, survey, first, both if judge else None, verdicts)
    summary = _summary(both if judge else first)
    if judge:
        summary |= {"rerank": rerank, "first_stage": _summary(first)}
        summary["verdicts"] = asdict(verdicts) if verdicts else None
    if as_json:
        print_json(summary)
        return
    if not judge:
        print_table(("metric", "value"), list(_summary(first).items()))
        return
    alone, together = _summary(first), _summary(both)
    print_table(("metric", "vector alone", "both stages"), [(name, alone[name], together[name]) for name in alone])
    if verdicts:
        _print_verdicts(verdicts)


def _only(stored: StoredTracks, tracks: Sequence[Track], manifest: str, collection: str) -> StoredTracks:
    """The rows of the tracks of a manifest; the user is told how many of them are not stored.

    Raises
    ------
    ManifestError
        If none of them is.
    """
    from ..errors import ManifestError

    found = stored.only(tracks)
    missing = len(tracks) - len(set(found.track_ids))
    if missing == len(tracks):
        raise ManifestError(f"{manifest}: none of its tracks is in {collection}; ingest it first")
    if missing:
        say(f"warning: {missing} of {len(tracks)} tracks of {manifest} are not in {collection}")
    return found


def _write_page(
    page: Path,
    name: str,
    covers: TrackCollection,
    survey: Survey,
    first: Evaluation,
    both: Evaluation | None,
    verdicts: Thresholds | None,
) -> None:
    from ..atomic import atomic_write
    from ..pages.evaluation import MOST_QUERIES, Report, evaluation_page
    from ..pages.mistakes import shown

    worst = shown(survey.worst(both or first, MOST_QUERIES), covers, survey)
    text = evaluation_page(Report(first, both, survey, verdicts, worst), name, page.parent)
    with atomic_write(page) as part:
        part.write_text(text, encoding="utf-8")


def _summary(result: Evaluation) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("map", "mr1", "precision_at_10", "queries", "tracks", "works")}


def _judgements(covers: TrackCollection, bundle: Path | None, rerank: int) -> Judgements:
    """The second stage that judges, of the bundle; its network is not needed, as chroma is stored."""
    from ..embedding.bundle import default_bundle, open_bundle
    from ..second_stage.judgements import Judgements
    from ..second_stage.rerank import Reranker, why_no_verdict

    opened = open_bundle(default_bundle() if bundle is None else bundle)
    verdict = opened.calibration
    if (lack := why_no_verdict(covers, opened.contract, verdict)) or verdict is None:
        raise click.ClickException(f"--rerank: {lack}")
    return Judgements(Reranker(covers, verdict, opened.contract.frame_s), rerank)


def _print_verdicts(verdicts: Thresholds) -> None:
    points = [(f"{point.probability:g}", _share(point.precision), _share(point.recall)) for point in verdicts.points]
    for precision, point in verdicts.for_precision.items():
        probability, recall = (f"{point.probability:.4g}", point.recall) if point else ("none has it", None)
        points.append((probability, f"{precision} or more", _share(recall)))
    print_table(("--min-probability", "precision", "recall"), points)
    print_table(("metric", "value"), [("equal error rate", verdicts.equal_error_rate)])


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
