"""
One plugin, called so that it can cost nobody but itself: a thread of its own, a deadline, quarantine and probing.

A call that is late loses its result. Its plugin is quarantined until the thread comes back, then left out of one more
call and probed with the next; every probe that is late again doubles how many calls are left out (counted in calls, so
that the machine's speed decides nothing). A call that merely raises loses its result and is called again next time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias

from wva_core.errors import PluginFailure, WvaError

__all__ = ["Call", "IsolatedPlugin", "Outcome"]

_LONGEST_PAUSE = 32
"""Calls left out between two probes, at most: 8 minutes at the default interval of 15 s."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call came to: a value, or the failure in its place; and how long it took, seconds."""

    value: Any = None
    failure: PluginFailure | None = None
    seconds: float = 0.0


class Call:
    """A call under way. `outcome` waits for it, once."""

    __slots__ = ("_error", "_finished", "_owner", "_refused", "_started", "_value", "hook", "seconds")

    def __init__(self, owner: IsolatedPlugin, hook: str, refused: PluginFailure | None = None) -> None:
        self.hook = hook
        self.seconds = 0.0
        self._owner = owner
        self._refused = refused
        self._started = time.perf_counter()
        self._finished = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Whether the plugin's thread has not come back from this call."""
        return self._refused is None and not self._finished.is_set()

    def run(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        """Carries the call out on the thread that asks for it."""
        try:
            self._value = function(**arguments)
        except KeyboardInterrupt:
            raise  # a person, not the plugin
        except BaseException as exc:  # noqa: BLE001 - the one place where anything a plugin raises is caught
            self._error = exc
        self.seconds = time.perf_counter() - self._started
        self._finished.set()

    def outcome(self, timeout: float | None) -> Outcome:
        """The value or the failure, after at most `timeout` seconds; None waits for ever."""
        if self._refused is not None:
            return Outcome(failure=self._refused)
        if not self._finished.wait(timeout):
            return Outcome(failure=self._owner.quarantine(self, timeout or 0.0), seconds=timeout or 0.0)
        self._owner.came_back_in_time()
        if self._error is not None:
            return Outcome(failure=_failure_of(self._owner.name, self.hook, self._error), seconds=self.seconds)
        return Outcome(value=self._value, seconds=self.seconds)


def _failure_of(name: str, hook: str, error: BaseException) -> PluginFailure:
    detail = str(error) if isinstance(error, WvaError) else f"{type(error).__name__}: {error}"
    failure = PluginFailure(
        f"raised {detail}",
        object=name,
        key=hook,
        remedy="its vote is left out of this cycle; see its log, or disable the entry",
    )
    failure.__cause__ = error
    return failure


_Work: TypeAlias = "tuple[Call, Callable[..., Any], dict[str, Any]]"


class IsolatedPlugin:
    """
    A plugin object behind a thread of its own, named for messages.

    The thread is made at the first call and ends with `close`; it is a daemon, so that a call that never comes back
    cannot keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._late: Call | None = None
        self._pause = 0
        self._left_out = 0

    @property
    def is_quarantined(self) -> bool:
        """Whether the next call would be left out."""
        return self.is_stuck or self._left_out < self._pause

    @property
    def is_stuck(self) -> bool:
        """Whether a late call has still not come back."""
        return self._late is not None and self._late.is_running

    def begin(
        self,
        hook: str,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        *,
        in_quarantine: bool = False,
        here: bool = False,
    ) -> Call:
        """
        Starts a call; in quarantine it answers at once with the reason.

        Args:
            in_quarantine: carry it out all the same, after the late call has come back.
            here: carry it out on the caller's thread. A call that nobody would cut short needs no thread of its own,
                and the hand-over to one costs more than most calls.
        """
        refused = None if in_quarantine else self._reason_to_leave_out(hook)
        call = Call(self, hook, refused)
        if refused is None and here:
            call.run(function, arguments)
        elif refused is None:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_serve, args=(self._calls,), name=f"wva-{self.name}", daemon=True
                )
                self._thread.start()
            self._calls.put((call, function, arguments))
        return call

    def _reason_to_leave_out(self, hook: str) -> PluginFailure | None:
        if self._late is None:
            return None
        if self._late.is_running:
            return PluginFailure(
                f"is quarantined: its call to {self._late.hook} has still not come back",
                object=self.name,
                key=hook,
                remedy="find out what it waits for; it is probed once that call returns",
            )
        if self._left_out < self._pause:
            self._left_out += 1
            more = self._pause - self._left_out
            return PluginFailure(
                "is quarantined after a late call and "
                + (f"left out of {more} more calls" if more else "probed with the next one"),
                object=self.name,
                key=hook,
                remedy="make it faster, raise the interval, or disable the entry",
            )
        return None

    def quarantine(self, call: Call, timeout: float) -> PluginFailure:
        """Notes that a call is late; nothing it returns later will count."""
        self._late = call
        self._pause = min(max(1, 2 * self._pause), _LONGEST_PAUSE)
        self._left_out = 0
        return PluginFailure(
            f"did not answer within {timeout:.3g} s",
            object=self.name,
            key=call.hook,
            remedy="its result is dropped and it is quarantined until the call returns; make it faster"
            " or raise the interval",
        )

    def came_back_in_time(self) -> None:
        """A call (or a probe) was in time: the quarantine, if there was one, is over."""
        self._late = None
        self._pause = 0

    def close(self) -> None:
        """Lets the thread end after the call it is in."""
        if self._thread is not None:
            self._calls.put(None)
            # a thread that is stuck keeps its own queue, and cannot take the place of the next one
            self._calls, self._thread = SimpleQueue(), None


def _serve(calls: SimpleQueue[_Work | None]) -> None:
    """The life of a plugin's thread: one call after the other until it is told to end."""
    while (work := calls.get()) is not None:
        call, function, arguments = work
        call.run(function, arguments)
