"""The nonces of the AI Engine protocol: WordPress' two ticks, moved by use and not by time."""

import hashlib

from batchchat.devserver.scenario import Scenario

__all__ = ["NonceBook"]


class NonceBook:
    """Which nonces are good now.

    As in WordPress, the nonce of the current tick and that of the tick before are accepted. A tick passes after
    ``rotate_after`` accepted submits; after ``nonce_uses`` of them, two pass at once, so that a nonce dies
    without notice.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._tick = 1
        self._uses = 0

    @property
    def current(self) -> str:
        """The nonce that ``start_session`` hands out; 10 hex digits."""
        return self._at(self._tick)

    @property
    def previous(self) -> str:
        """The nonce of the tick before: still accepted, answered with a ``new_token``."""
        return self._at(self._tick - 1)

    def rotate(self) -> str:
        """Lets one tick pass: the current nonce becomes the previous one. Returns the new one."""
        self._pass(1)
        return self.current

    def expire(self) -> str:
        """Lets two ticks pass: every nonce handed out so far is refused. Returns the new one."""
        self._pass(2)
        return self.current

    def accepts(self, nonce: str) -> bool:
        """Whether a nonce is of the current tick or the one before."""
        return nonce in (self.current, self.previous)

    def turn_over(self, scenario: Scenario) -> None:
        """Lets ticks pass where the current nonce has had its uses; before a nonce is checked or handed out."""
        if scenario.nonce_uses and self._uses >= scenario.nonce_uses:
            self._pass(2)
        elif scenario.rotate_after and self._uses >= scenario.rotate_after:
            self._pass(1)

    def spend(self) -> None:
        """Counts one accepted submit."""
        self._uses += 1

    def _pass(self, ticks: int) -> None:
        self._tick += ticks
        self._uses = 0

    def _at(self, tick: int) -> str:
        return hashlib.blake2b(f"{self._seed}:{tick}".encode(), digest_size=5).hexdigest()
