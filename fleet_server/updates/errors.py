"""What can be wrong with keys, metadata and releases; each as a sentence in both languages, chosen where it is shown."""

from __future__ import annotations

from fleet_server.errors import FleetServerError
from fleet_server.updates import words


class UpdatesError(FleetServerError):
    """A person must act. `reason` is a key of the catalogues' `problems`, `facts` fill its sentence. Its text is the English sentence."""

    status = 409
    word = "updates"

    def __init__(self, reason: str, **facts: object) -> None:
        self.reason, self.facts = reason, facts
        super().__init__(self.sentence("en"))

    def sentence(self, language: words.Language) -> str:
        return words.say(language, "problems", self.reason, self.facts)


class PackRefused(UpdatesError):
    """A release pack or a content file that must not be published."""

    status = 400


class Busy(UpdatesError):
    """Another process is publishing; try again."""

    status = 503
