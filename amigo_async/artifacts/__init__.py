"""Artifacts of runs: a stream that heals itself, and a download that is whole or absent."""

from amigo_async.artifacts.download import SavedFile, save
from amigo_async.artifacts.room import Artifacts
from amigo_async.artifacts.seam import Policy
from amigo_async.artifacts.stream import ArtifactStream

__all__ = ["ArtifactStream", "Artifacts", "Policy", "SavedFile", "save"]
