"""A development server on loopback: both chat protocols, answers by echo, misbehaviour on request."""

from batchchat.devserver.app import create_app
from batchchat.devserver.scenario import FAULTS, Scenario
from batchchat.devserver.scenario_file import change_scenario, load_scenario
from batchchat.devserver.server import DevServer
from batchchat.devserver.state import RequestRecord

__all__ = ["FAULTS", "DevServer", "RequestRecord", "Scenario", "change_scenario", "create_app", "load_scenario"]
