"""Every way in which a stored run can be damaged has a name."""

from __future__ import annotations

from conformance.errors import UsageError
from conformance.safe_text import one_line


class RunDamage(UsageError):
    """A run folder cannot be trusted; the subclass says how.

    What a folder from elsewhere holds reaches the message, and no terminal acts on it.

    Attributes:
        advice: what to do next, where whoever raises it knows nothing better.
    """

    advice = "copy the folder again if it came from elsewhere, else run it again; shards that are whole can be merged"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(one_line(message, 1000), hint or self.advice)


class NotARun(RunDamage):
    """The path is no folder, or a folder without run.json."""

    advice = "name a folder that conformance run -o wrote"


class UnknownFormat(RunDamage):
    """run.json says a format version that this suite does not read."""

    advice = "read it with the version of the suite that wrote it, or run it again"


class MissingFile(RunDamage):
    """A file that every run has is not there."""


class Garbled(RunDamage):
    """A line is no JSON object of the agreed form, or says again what another has said."""


class Truncated(RunDamage):
    """results.jsonl has no footer: the run was cut off, or the file was."""


class Incomplete(RunDamage):
    """The footer says that the run was interrupted; what was judged before can be trusted."""


class Miscounted(RunDamage):
    """The footer counts other numbers than the lines say: lines were lost or added."""


class DamagedArrays(RunDamage):
    """arrays.safetensors cannot be read."""
