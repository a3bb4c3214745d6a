"""A provider without an agent: each prompt plays the next turn of a script.

It keeps every promise of `ports.provider` (`ProviderSuite` holds it to them) and starts no process, so engines,
policies, routes and users' own code can be tested in microseconds::

    agent = ScriptedProvider([Say("On it."), Use("bash", {"command": "make"}, output="ok"), Say("Done.")], "And again.")

A turn is a list of steps, one step, a text (`Say`), or a function of the prompt and the connection that gives one of
these. A function that yields steps is asked for the next one when the one before has been played.
"""

from agentkeel.testing.scripted.provider import CAPABILITIES, ScriptedConnection, ScriptedProvider, Turn
from agentkeel.testing.scripted.steps import (
    Crash,
    CutOff,
    Deaf,
    Emit,
    Fail,
    Hang,
    Say,
    Spend,
    Step,
    Stop,
    Think,
    Use,
    Wait,
)

__all__ = [
    "CAPABILITIES",
    "Crash",
    "CutOff",
    "Deaf",
    "Emit",
    "Fail",
    "Hang",
    "Say",
    "ScriptedConnection",
    "ScriptedProvider",
    "Spend",
    "Step",
    "Stop",
    "Think",
    "Turn",
    "Use",
    "Wait",
]
