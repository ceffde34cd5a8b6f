"""One tree of errors; each class has an exit code, and each message says what to do."""

from __future__ import annotations


class KuiperError(Exception):
    """Base of every error that kuiper raises on purpose.

    Args:
        message: what is wrong, naming the key or thing, its value and the bound it breaks.
        remedy: what the user can do about it.
    """

    exit_code = 100

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message


class UsageError(KuiperError):
    """The command line is wrong."""

    exit_code = 2


class SpecError(KuiperError):
    """The job spec is wrong; nothing was started."""

    exit_code = 3


class TooManyByzantine(SpecError):
    """A rule was asked to tolerate more Byzantine rows than it can."""


class HostError(KuiperError):
    """A host cannot be reached or does not let us in."""

    exit_code = 4


class Unreachable(HostError):
    """There is no connection to a host, or none any more."""


class ConflictError(KuiperError):
    """Something is in the way: a job that runs or has succeeded, a run directory, a port, a file."""

    exit_code = 5


class JobFailed(KuiperError):
    """The job ran and failed."""

    exit_code = 100


class NotEnded(KuiperError):
    """The job has not come so far yet."""

    exit_code = 101


class QuorumLost(JobFailed):
    """Fewer live senders than the gather needs."""


class DifferentData(JobFailed):
    """A process holds another data set than the run."""


class ProtocolError(JobFailed):
    """A peer sent something that its channel does not allow."""


class RecordError(JobFailed):
    """A record cannot be written, or what is read is not one of ours."""


class UnknownJob(KuiperError):
    """No job of that name or run id."""

    exit_code = 102


class JobStopped(KuiperError):
    """The job was stopped before its end."""

    exit_code = 103


class PartlyDone(KuiperError):
    """Some hosts could not be reached; what could be done was done."""

    exit_code = 104
