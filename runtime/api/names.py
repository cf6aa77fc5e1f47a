"""Model names as requests spell them. Source: the Ollama API, "Model names"."""

from __future__ import annotations

import re

from runtime.api.errors import Refused
from storage.errors import NameInvalid
from storage.reference import ModelName

CLOUD_DISABLED = "ollama cloud is disabled: remote model is unavailable"
NO_CLOUD_DETAILS = "ollama cloud is disabled: remote model details are unavailable"
_LONGEST = 1024  # characters; the longest name has some 600
_SOURCE = re.compile(r":(?P<source>cloud|local)$|:[^/:]*(?P<cloud>-cloud)$", re.IGNORECASE)


def parse_name(text: str, *, no_cloud: str = CLOUD_DISABLED) -> ModelName:
    """The model that `text` names here. Raises Refused: a name that asks for the cloud never means local weights.

    no_cloud: the route's words for that.
    """
    if len(text) > _LONGEST:  # blanks around it count: replies repeat a name as it came, each chunk of them
        raise Refused(400, "invalid model name")
    name, source = _cut_source(text.strip())
    if source is not None and _cut_source(name)[1] is not None:
        raise Refused(400, f'use either :local or :cloud, not both: "{text}"')
    try:
        parsed = ModelName.parse(name)
    except NameInvalid:
        raise Refused(400, "invalid model name") from None
    if source == "cloud":
        raise Refused(403, no_cloud)
    return parsed


def _cut_source(text: str) -> tuple[str, str | None]:
    """`text` without its source suffix, and which it was: "cloud", "local" or None."""
    found = _SOURCE.search(text)
    if found is None:
        return text, None
    if found["cloud"]:
        return text[: found.start("cloud")], "cloud"
    return text[: found.start()], found["source"].lower()
