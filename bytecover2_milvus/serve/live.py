"""The catalogue of the service as it is now: it grows, and its name may come to stand for another collection."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from ..errors import CollectionError, CollectionMissing
from ..milvus.alias import collection_behind
from ..milvus.collection import TrackCollection
from ..milvus.connection import is_embedded
from ..second_stage.answer import Catalogue

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..embedding.embedder import Embedder

RENEW_S = 30.0  # after which a query looks whether there are other rows

log = logging.getLogger(__name__)


class LiveCatalogue:
    """A `Catalogue` that is opened again, with its cohort, where there are other rows than before.

    Parameters
    ----------
    client : MilvusClient
    name : str
        Of the collection or an alias. On a server it may come later.
    embedder : Embedder

    Raises
    ------
    CollectionError
        If the collection is another model's or none of ours, or is missing in a Milvus Lite, which nobody else can
        fill meanwhile.
    """

    def __init__(self, client: MilvusClient, name: str, embedder: Embedder) -> None:
        self.client, self.name, self._embedder = client, name, embedder
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None
        self._state: tuple[str, int] | None = None  # the collection's own name, and its rows
        self._looked = 0.0
        try:
            self.now()
        except CollectionMissing as error:
            if is_embedded(client):
                raise
            log.warning("waiting for the collection: %s", error)

    def now(self) -> Catalogue:
        """The catalogue, at most `RENEW_S` old.

        Raises
        ------
        CollectionError
            If it could never be opened so far. One that was stays what it is where Milvus fails or its name stands for
            another model's collection; the log says so.
        """
        catalogue = self._catalogue
        if catalogue is not None and time.monotonic() < self._looked + RENEW_S:
            return catalogue
        if not self._lock.acquire(blocking=catalogue is None):
            assert catalogue is not None
            return catalogue  # somebody else is at it
        try:
            self._renew()
        except CollectionError as error:
            if self._catalogue is None:
                raise
            log.warning("the catalogue stays as it was: %s", error)
        finally:
            self._looked = time.monotonic()
            self._lock.release()
        assert self._catalogue is not None
        return self._catalogue

    def _renew(self) -> None:
        known = self._catalogue
        if known is not None and self._state == (collection_behind(self.client, self.name), self._rows(known)):
            return
        opened = Catalogue(TrackCollection.open(self.client, self.name, self._embedder.model_id), self._embedder)
        rows = self._rows(opened)
        _ = opened.second_stage  # with its cohort, before anybody asks
        self._catalogue, self._state = opened, (opened.collection.name, rows)

    def _rows(self, catalogue: Catalogue) -> int:
        return catalogue.collection.count(fresh=False)
