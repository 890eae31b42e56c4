"""infermesh: its command ``infermesh generate``."""

import os
import sys

from tests.bench.peers.arguments import parse_arguments

options = parse_arguments()
command = os.path.join(os.path.dirname(sys.executable), "infermesh")
arguments = ["generate", "--model", "openai/canned", "--api-base", options.api, "--input-jsonl", options.input]
arguments += ["--output-jsonl", options.output, "--max-parallel-requests", str(options.concurrency)]
if options.rate:
    arguments += ["--rpm", str(int(options.rate * 60))]
os.environ["OPENAI_API_KEY"] = "dummy"
os.execv(command, [command, *arguments])
