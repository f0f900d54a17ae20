"""The public names of `amigo_async`, which imports them with their first use."""

from amigo_async.artifacts import Artifacts, ArtifactStream
from amigo_async.auth import ApiKeyAuth, BasicAuth, BearerAuth
from amigo_async.batch import Batch, BatchOptions, BatchResult, RunOutcome
from amigo_async.client import AmigoClient
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    APIError,
    ArgumentError,
    ArtifactChangedError,
    ArtifactError,
    ArtifactsNotReadyError,
    ArtifactTimeoutError,
    ArtifactTruncatedError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    DeadlineError,
    DecodeError,
    ForbiddenError,
    JournalError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServiceUnavailableError,
    TransportError,
    ValidationError,
    WaitTimeoutError,
)
from amigo_async.models import ArtifactsLink, CreatedRun, Run, RunPage, UnitTestSet, UserInfo
from amigo_async.names import Explanations, Names
from amigo_async.polling import Cancellation
from amigo_async.ratelimit import BudgetState
from amigo_async.resources.evaluations import Evaluations
from amigo_async.resources.metrics import Metrics
from amigo_async.resources.runs import Runs
from amigo_async.resources.unit_test_sets import UnitTestSets
from amigo_async.resources.unit_tests import UnitTests
from amigo_async.verdicts.comparison import (
    BatchComparison,
    Change,
    Comparison,
    MetricComparison,
    RateCounts,
    UnitTestComparison,
    compare,
    compare_sets,
)
from amigo_async.verdicts.gate import Gate, Judgement, PassRate
from amigo_async.version import __version__

__all__ = [
    "APIError",
    "AmbiguousStartError",
    "AmigoClient",
    "AmigoError",
    "ApiKeyAuth",
    "ArgumentError",
    "ArtifactChangedError",
    "ArtifactError",
    "ArtifactStream",
    "ArtifactTimeoutError",
    "ArtifactTruncatedError",
    "Artifacts",
    "ArtifactsLink",
    "ArtifactsNotReadyError",
    "AuthenticationError",
    "BadRequestError",
    "BasicAuth",
    "Batch",
    "BatchComparison",
    "BatchOptions",
    "BatchResult",
    "BearerAuth",
    "BudgetState",
    "Cancellation",
    "Change",
    "Comparison",
    "ConfigurationError",
    "ConflictError",
    "CreatedRun",
    "DeadlineError",
    "DecodeError",
    "Evaluations",
    "Explanations",
    "ForbiddenError",
    "Gate",
    "JournalError",
    "Judgement",
    "MetricComparison",
    "Metrics",
    "Names",
    "NotFoundError",
    "PassRate",
    "RateCounts",
    "RateLimitError",
    "RequestTimeoutError",
    "Run",
    "RunOutcome",
    "RunPage",
    "Runs",
    "ServerError",
    "ServiceUnavailableError",
    "TransportError",
    "UnitTestComparison",
    "UnitTestSet",
    "UnitTestSets",
    "UnitTests",
    "UserInfo",
    "ValidationError",
    "WaitTimeoutError",
    "__version__",
    "compare",
    "compare_sets",
]
