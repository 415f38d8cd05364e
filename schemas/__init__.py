"""Contracts as data: the Milvus collection and the JSON Schemas of lines, manifest and bundle contract."""
