"""A model filter in the style of Auth0: a user's roles say which models he may ask.

`AUTH0_ROLES` names a file that your Auth0 action writes when roles change:
`{"alice": ["engineer"], "bob": []}`. Whoever has no role may ask what everybody may.
"""

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path

from cascaded import EnforcementContext

EVERYBODY = ("cheap*",)
BY_ROLE = {"engineer": ("*",), "support": ("cheap*", "gpt-4o-mini")}


class Auth0Roles:
    """Made once, when the configuration is read."""

    def __init__(self) -> None:
        self._file = Path(os.environ["AUTH0_ROLES"])

    def on_model_filter(self, context: EnforcementContext, models: tuple[str, ...]) -> list[str]:
        """The models that one of the user's roles allows. It reads a file, so it is no coroutine:
        the daemon runs it on a thread."""
        roles = json.loads(self._file.read_text()).get(context.user_id, [])
        patterns = [*EVERYBODY, *(each for role in roles for each in BY_ROLE.get(role, ()))]
        return [model for model in models if any(fnmatchcase(model, one) for one in patterns)]
