"""batchllm-ai: its command ``batchllm run`` with a checkpoint; it has no option for a rate."""

import os
import sys

from tests.bench.peers.arguments import parse_arguments

options = parse_arguments()
command = os.path.join(os.path.dirname(sys.executable), "batchllm")
arguments = ["run", options.input, "-o", options.output, "-m", "canned", "-c", str(options.concurrency)]
arguments += ["--api-key", "dummy", "--base-url", options.api, "--input-column", "prompt"]
os.execv(command, [command, *arguments, "--checkpoint", options.output + ".checkpoint"])
