"""Who may speak in the swarm's DHT: tokens that the operator signed offline, no server.

Import it only where Hivemind may be loaded.
"""

from __future__ import annotations

from collections.abc import Callable

from hivemind.proto.auth_pb2 import AccessToken
from hivemind.utils.auth import TokenAuthorizerBase
from hivemind.utils.crypto import RSAPrivateKey

from gtft.swarm.document import name_user, token_text
from gtft.swarm.keys import is_signed_by_operator, read_identity_der
from gtft.swarm.place import Seat
from gtft.training.swarm.roster import Roster


class OperatorTokens(TokenAuthorizerBase):  # type: ignore[misc]
    """Proves this peer with its member entry, and believes others by theirs."""

    def __init__(
        self, key: RSAPrivateKey, peer_id: str, roster: Roster, now: Callable[[], float]
    ) -> None:
        super().__init__(key)
        self._peer_id = peer_id
        self._roster = roster
        self._now = now

    async def get_token(self) -> AccessToken:
        document = self._roster.document
        own = document.find(self._peer_id)
        if own is None:
            # An empty token is refused by everybody: this peer was taken off the list.
            return AccessToken()
        return AccessToken(
            username=name_user(own.peer_id, own.since),
            public_key=own.public_key.encode(),
            expiration_time=str(document.expires),
            signature=bytes.fromhex(own.token),
        )

    def is_token_valid(self, access_token: AccessToken) -> bool:
        """Signed by the operator for this swarm and key, not ended, and not taken off the list since."""
        document = self._roster.document
        peer_id, _, since = access_token.username.partition(" ")
        ends = access_token.expiration_time
        if not (_is_count(since) and _is_count(ends)) or int(ends) <= self._now():
            return False
        # Who came with a newer list than ours is not on ours yet.
        if document.find(peer_id) is None and int(since) <= document.serial:
            return False
        try:
            key = access_token.public_key.decode("ascii")
        except UnicodeDecodeError:
            return False
        text = token_text(document.swarm, access_token.username, key, ends)
        return is_signed_by_operator(document.operator, text, access_token.signature.hex())

    def does_token_need_refreshing(self, access_token: AccessToken) -> bool:
        document = self._roster.document
        own = document.find(self._peer_id)
        return own is None or access_token.signature.hex() != own.token


def make_authorizer(seat: Seat, roster: Roster, now: Callable[[], float]) -> OperatorTokens:
    """Raises InputError when the identity cannot be read."""
    key = RSAPrivateKey.__new__(RSAPrivateKey)
    key.__setstate__({"_private_key": read_identity_der(seat.identity)})
    return OperatorTokens(key, seat.peer_id, roster, now)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12
