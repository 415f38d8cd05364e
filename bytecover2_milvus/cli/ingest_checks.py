"""The options of ``ingest`` that exclude each other."""

from __future__ import annotations

from pathlib import Path

import click

from .inputs import STANDARD_INPUT


def check_options(
    *,
    paths: tuple[Path, ...],
    manifest: Path | None,
    vectors: Path | None,
    bulk: Path | None,
    has_segments: bool,
    has_ray: bool,
    workers: int | None,
    prune: bool,
    yes: bool,
    watch: bool,
) -> None:
    """Refuse options of ``ingest`` that do not go together, before anything is opened.

    Raises
    ------
    click.UsageError
        With the options and the reason.
    """
    has_audio = bool(paths or manifest)
    if vectors and (has_audio or bulk):
        raise click.UsageError("--vectors takes the place of files, folders and --manifest, and goes into a Milvus")
    if not (vectors or has_audio):
        raise click.UsageError("nothing to ingest: give files, folders, --manifest or --vectors")
    if vectors and has_segments:
        raise click.UsageError("--segment cuts audio; the rows of --vectors stay as they are")
    if has_ray and vectors:
        raise click.UsageError("--ray embeds audio; the rows of --vectors are embedded already")
    if has_ray and workers == 0:
        raise click.UsageError("--ray needs one or more --workers")
    if prune and (vectors or bulk):
        raise click.UsageError("--prune needs audio that is ingested into a Milvus")
    if watch and (vectors or bulk or has_ray):
        raise click.UsageError("--watch embeds audio here, into a Milvus; leave out --vectors, --bulk and --ray")
    if watch and prune and not yes:
        raise click.UsageError("--watch with --prune asks nobody; say --yes")
    if watch and STANDARD_INPUT in (*paths, manifest):
        raise click.UsageError("--watch looks at folders and manifests; standard input is read once")
