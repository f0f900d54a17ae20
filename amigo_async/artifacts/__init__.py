"""Artifacts of runs: a stream that heals itself, and a download that is whole or absent."""

from amigo_async.artifacts.artifacts import Artifacts, ArtifactStream
from amigo_async.artifacts.download import SavedFile, save
from amigo_async.artifacts.source import Policy

__all__ = ["ArtifactStream", "Artifacts", "Policy", "SavedFile", "save"]
