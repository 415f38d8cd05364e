from .batch import IngestRecord as IngestRecord
from .pipeline import ingest as ingest
