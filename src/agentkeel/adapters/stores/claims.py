"""Who may write a run's events: claims with a fence, living as long as the process that grants them.

Both built-in stores have one owning process, so a claim needs no row: when the process dies its claims die with it, and
the next owner's epoch makes every older fence stale. A fence grows with each claim, over all epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId
from agentkeel.errors import Fenced

__all__ = ["Claims"]

_BITS = 32
"""Claims one epoch can grant, as a power of two."""


@dataclass(slots=True)
class _Claim:
    owner: str
    fence: int
    until: float


class Claims:
    """The live and the lapsed claims of one epoch. `monotonic` gives seconds."""

    def __init__(self, epoch: int, monotonic: Callable[[], float]) -> None:
        self._epoch = epoch
        self._monotonic = monotonic
        self._granted = 0
        self._by_run: dict[RunId, _Claim] = {}

    def claim(self, run_id: RunId, owner: str, ttl: float) -> int:
        """`owner` has the run for `ttl` seconds. The fence; all earlier ones of this run are stale.

        Raises:
            Fenced: Another owner's claim lives.
        """
        now = self._monotonic()
        held = self._by_run.get(run_id)
        if held is not None and held.owner != owner and held.until > now:
            raise Fenced(
                f"Run {run_id} belongs to {held.owner} for another {held.until - now:.1f} s.",
                details={"run_id": run_id, "owner": held.owner},
            )
        self._granted += 1
        fence = (self._epoch << _BITS) + self._granted
        self._by_run[run_id] = _Claim(owner, fence, now + ttl)
        return fence

    def check(self, drafts: Iterable[Draft], fence: int) -> None:
        """Say nothing if `fence` is the newest of every run the drafts belong to. A lapsed claim nobody took is good.

        Raises:
            Fenced: It is stale, or no fence of this epoch.
        """
        if fence >> _BITS == self._epoch:
            for run_id in {draft.run_id for draft in drafts if draft.run_id is not None}:
                held = self._by_run.get(run_id)
                if held is not None and held.fence != fence:
                    break
            else:
                return
        raise Fenced(
            "Another owner has taken the run. Nothing was added; stop, and do not retry.", details={"fence": fence}
        )

    def renew(self, owner: str, ttl: float) -> None:
        """The claims of `owner` live for another `ttl` seconds."""
        until = self._monotonic() + ttl
        for held in self._by_run.values():
            if held.owner == owner:
                held.until = until

    def taken(self, run_id: RunId, *, but: str) -> bool:
        """Whether the run is `but`'s, or somebody's whose claim lives: no orphan, as far as `but` is concerned."""
        held = self._by_run.get(run_id)
        return held is not None and (held.owner == but or held.until > self._monotonic())

    def ended(self, run_id: RunId) -> None:
        """The run needs no claim any more."""
        self._by_run.pop(run_id, None)
