"""The error of a sample that is no document."""


class SampleError(ValueError):
    """A sample is no document: the message says why, `reason` says it in a few words for counts."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)  # both, or else it could not leave a process
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]
