"""A model on this machine: its file, and the llama.cpp server that runs it in a process of its own."""

from batchchat.local.model import ModelFile, find_model, installed_model
from batchchat.local.server import LocalServer, ServerSettings, check_runtime

__all__ = ["LocalServer", "ModelFile", "ServerSettings", "check_runtime", "find_model", "installed_model"]
