"""Artifacts of runs: streams that resume on their own, and downloads that are whole or absent."""

from amigo_async.artifacts.artifacts import Artifacts, ArtifactStream
from amigo_async.artifacts.download import SavedFile, save
from amigo_async.artifacts.source import Policy

__all__ = ["ArtifactStream", "Artifacts", "Policy", "SavedFile", "save"]
