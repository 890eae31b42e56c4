"""flexllm: its command ``flexllm batch``."""

import os
import sys

from tests.bench.peers.arguments import parse_arguments

options = parse_arguments()
command = os.path.join(os.path.dirname(sys.executable), "flexllm")
arguments = ["batch", options.input, "-o", options.output, "--base-url", options.api, "--api-key", "dummy"]
arguments += ["-m", "canned", "-c", str(options.concurrency)]
if options.rate:
    arguments += ["--max-qps", str(options.rate)]
os.execv(command, [command, *arguments])
