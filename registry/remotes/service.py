"""How this server speaks to other registries: by which policy, as whom, and how much of it at once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from auth.errors import KeyInvalid
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import LocalFileUnfit
from registry.remotes.http import USER_AGENT, Outbound
from registry.remotes.identity import server_identity
from registry.remotes.jobs import Jobs
from registry.remotes.places import Place, find_place
from registry.remotes.reach import Reach, Resolver, system_resolver
from registry.remotes.settings import RemoteSettings, read_token
from registry.remotes.slots import Slot, Slots
from registry.remotes.upstream import Upstream
from storage.reference import DEFAULT_HOST, ModelName

_CONNECT_S: Final = 10.0
_READ_S: Final = 30.0
_AGENT: Final = f"{USER_AGENT} (server)"  # which a registry had better not send to any address
# It asks for the newest client that a model needs, and reads the version of one that calls itself so.
_AGENTS: Final = {DEFAULT_HOST: f"ollama/0.0.0 {USER_AGENT}"}


class Remotes:
    """One for a process. `downloads`: blobs on their way into the store."""

    def __init__(self, settings: RemoteSettings, resolve: Resolver = system_resolver) -> None:
        self._settings = settings
        self._reach = Reach(settings.named, resolve)
        self._slots = Slots(settings.transfers)
        self._limits = settings.limits()
        self.downloads = Jobs()

    def place(self, text: str, name: ModelName, *, insecure: bool) -> Place:
        """Raises InsecureProtocol, NameInvalid, UrlInvalid."""
        return find_place(text, name, self._settings.upstream, insecure=insecure)

    def outbound(self, place: Place | Upstream) -> Outbound:
        """A client of its own for one conversation with the place's registry and wherever that sends us."""
        reach = self._reach_of(place)
        agent = _AGENTS.get(place.server.host, _AGENT)
        return Outbound(user_agent=agent, connect_s=_CONNECT_S, read_s=_READ_S, reach=reach, limits=self._limits)

    def repository(self, place: Place | Upstream, *, is_pushing: bool = False) -> RemoteRepository:
        """The place's repository, as this server. Raises UrlInvalid, LocalFileUnfit: its own files are not in order."""
        own_token = place.token_path if isinstance(place, Upstream) else None
        token = read_token(own_token) if own_token is not None else self._settings.token_for(place.server)
        try:
            key = server_identity(self._settings.keys_path)
        except (KeyInvalid, OSError) as error:
            raise LocalFileUnfit("this server's own key cannot be read; `tonnage key show` tells why") from error
        reach = self._reach_of(place)
        auth = Authenticator(self.outbound(place), key=key, token=token, trusts=reach.names)
        return RemoteRepository(auth, str(place.server), place.path, is_pushing=is_pushing)

    def _reach_of(self, place: Place | Upstream) -> Reach:
        """Hosts that the operator named for their own sake are within reach of those hosts alone."""
        reach = self._reach.seen_from(place.server.host, place.server.port)
        return replace(reach, named=(*reach.named, place.named)) if isinstance(place, Upstream) else reach

    def slot(self, principal: str | None = None) -> AbstractContextManager[Slot]:
        """A place among the transfers of this process, and among those of `principal`.

        Entering it raises QueueFull at once when there is none.
        """
        return self._slots.slot(principal)
