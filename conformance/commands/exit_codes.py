"""What the commands that run cases exit with; on bad usage it is `conformance.errors.UsageError`'s code."""

AS_EXPECTED, UNEXPECTED, COULD_NOT_RUN = 0, 1, 3
