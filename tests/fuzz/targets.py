"""Everything that is parsed, by name: what takes its bytes, and the pieces of text that lead it somewhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import input_targets, journal_targets, wire_targets

FOLDER = Path(__file__).parent
Target = Callable[[bytes], None]


class Parser(NamedTuple):
    """A target and its words, which are put together at random and given to libFuzzer as its dictionary."""

    target: Target
    words: tuple[bytes, ...]


def _words(text: str) -> tuple[bytes, ...]:
    """Words of a text, one a line; ``\\n``, ``\\0`` and ``\\xNN`` stand for such bytes."""
    return tuple(line.encode().decode("unicode_escape").encode("latin-1") for line in text.split("\n") if line)


_SPACES = r"""
\n
\r
\r\n
\x00
\xff
\xef\xbb\xbf
\xe2\x80\xa8
"""
_JSON = (
    _SPACES
    + r"""
{
}
[
]
,
:
""
"x"
null
true
false
0
-1
1e400
1e5
NaN
Infinity
99999999999999999999
"\\ud83d"
"\\u0000\\n\\u001b[31m"
[[[[[[[[
]]]]]]]]
"""
)
_INPUT = (
    _JSON
    + r"""
{"prompt":"hi"}
{"id":1,"prompt":"a"}
"id":
"custom_id":
"prompt":
"messages":[{"role":"user","content":"hi"}]
"turns":["a","b"]
"body":{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}
"url":"/v1/responses"
"body":{"input":"hi","instructions":"x"}
"system":
"model":
"params":
"chat_id":
"error":{"type":"server"}
"response":null
"input":{"prompt":"hi"}
"""
)
_ROWS = (
    _SPACES
    + r"""
prompt
id,prompt
messages
turns
params
,
;
\t
"
""
"a""b"
[{"role":"user","content":"hi"}]
["a"]
{"a":1}
"""
)
_SSE = (
    _SPACES
    + r"""
data:\x20
data:
data
event: e
id: 1
retry: 5
: ping
\n\n
\r\n\r\n
\r\r
<br />
"""
)
_AI_ENGINE = (
    _SSE
    + _JSON
    + r"""
data: {"type":"live","data":"a"}
data: {"type":"live","subtype":"content","data":"a"}
data: {"type":"live","subtype":"thinking","data":"a"}
data: {"type":"error","data":"limit"}
data: {"type":"end","data":"{\\"success\\":true,\\"reply\\":\\"hi\\"}"}
data: {"type":"end","data":{"success":true,"reply":"hi","usage":{"prompt_tokens":3}}}
{"success":true,"reply":"hi"}
{"success":false,"message":"try again in 20s"}
"success":true
"reply":
"actions":[{}]
"images":["u"]
"usage":{"prompt_tokens":1,"completion_tokens":-5}
"new_token":"abc"
<html>
"""
)
_CHAT = (
    _SSE
    + _JSON
    + r"""
data: [DONE]
data: {"choices":[{"index":0,"delta":{"content":"a"}}]}
data: {"choices":[{"index":1,"delta":{"content":"b"}}]}
data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}
data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}
data: {"choices":[],"usage":{"prompt_tokens":1}}
data: {"error":{"message":"no","code":429}}
data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]}}]}
{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}
{"choices":[{"message":{"refusal":"no"},"finish_reason":"content_filter"}]}
"choices":
"message":
"delta":
"content":
"finish_reason":
"length"
"tool_calls":
"index":
"usage":
"model":
"error":
<html>
"""
)
_RESPONSES = (
    _SSE
    + _JSON
    + r"""
data: {"type":"response.output_text.delta","delta":"a"}
data: {"type":"response.refusal.delta","delta":"no"}
data: {"type":"response.completed","response":{"object":"response","status":"completed","output":[]}}
data: {"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}
data: {"type":"response.failed","response":{"error":{"message":"no"}}}
data: {"type":"response.output_item.done","item":{"type":"function_call","name":"f"}}
data: {"type":"error","message":"no"}
{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}]}
"output":
"status":
"usage":
"type":
"function_call"
"""
)
_ERRORS = (
    _JSON
    + r"""
429\n
403\n
{"error":{"message":"m","type":"t","code":"c"}}
"error":
"message":
"code":
"status":
"detail":
"success":
"rest_no_route"
"internal_server_error"
insufficient_quota
try again in 1h2m3.5s
<html><body>captcha</body></html>
<script>
\x1b]0;x\x07
"""
)
_NONCES = (
    _JSON
    + r"""
{"success":true,"restNonce":"b3fa3492d0"}
"restNonce":
"new_token":
"abc123"
<b>Warning</b>
<html>
"""
)
_HEADERS = r"""
\x00
0
120
0.5
-1
+3
1e3
1_0
nan
inf
99999999999999999999
Wed, 25 Nov 2026 03:20:46 GMT
Thu, 26 Nov 2026 12:00:30 GMT
Fri, 31 Dec 9999 23:59:59 -2359
Mon, 01 Jan 0001 00:00:00 +2359
+99999999
-0000
6m0s
120ms
1d2h
5\xc2\xb5s
1800000060
1800000060000
\xd9\xa3
\xff
"""
_YAML = (
    _SPACES
    + r"""
:\x20
-\x20
\x20\x20
# x\n
&a\x20
*a
<<: *a
!!binary x
!!python/object:x
!!set {a}
{a: b}
[a, b]
'x'
"x"
|
>\n
---\n
...\n
%YAML 1.1\n
?\x20
${NAME}
${KEY}
${UNSET}
${UNSET:-x}
${
$$
yes
0o7
012
1:30
2001-01-01
.inf
.nan
1e400
1_000
~
"\\ud83d"
"\\x1b"
"""
)
_JOBS = (
    _YAML
    + r"""
version: 1\n
input: [a.jsonl]\n
output: {path: r.jsonl, format: flat}\n
provider: {name: openai, base_url: "http://x", model: m}\n
provider: {name: ai-engine, base_url: "http://x"}\n
prompt: {template: "{{ question }}", params: {temperature: 0}}\n
concurrency: 4\n
rate: [5/s]\n
timeout: {attempt: 5m}\n
retry: {retries: 5}\n
stop: {max_failures: 2%}\n
env_file: x.env\n
unknown: 1\n
answer: {schema: {type: object}, extract: a.b}\n
matrix: {temperature: [0, 1]}\n
"""
)
_OPTIONS = r"""
=
.
rate=
burst=
concurrency=
tokens_per_minute=
timeout.attempt=
retry.retries=
stop.max_failures=
stop.budget_usd=
prompt.params.seed=
prompt.template=
output.format=
output.path=
provider.base_url=
provider.model=
provider.api_key_env=
provider.headers.X-A=
answer.extract=
matrix.temperature=
10/s
5m
2%
1e999
\xd9\xa3
{a: 1}
http://u:p@h:99999/
http://[::1
\n
\x1b
"""
_SCENARIOS = (
    _YAML
    + r"""
latency_ms: 5\n
rate_limit: 5/s\n
retry_after: 3\n
seed: 1\n
error_event: 0.5\n
drop: 1e-3\n
fail_with: x\n
redirect_status: 302\n
nonce_uses: 3\n
"""
)
_ENV = (
    _SPACES
    + r"""
NAME=value
export\x20
A=
B='x'
C="x\\n"
${NAME}
${A:-b}
#
'
"
=
\\
"""
)
_TEMPLATES = r"""
{{ question }}
{{\x20
\x20}}
{% if n %}
{% else %}
{% endif %}
{% for t in tags %}
{% endfor %}
{% set x = 1 %}
{% include "a" %}
{% macro m(a) %}
{% endmacro %}
{% raw %}
{# x #}
meta.title
meta.items
fields["n"]
missing
\x20| default("x")
\x20| tojson
\x20| join(",")
\x20| map("upper")
\x20| length
\x20| format
\x20| attr("__class__")
.__class__
.__init__.__globals__
()
"%s"
*
**
99999
~
[0]
"""
_DURATIONS = r"""
0
1
9
.
/
s
ms
m
h
d
min
day
\x20
-
e5
1h30m
200/s
10000/d
99999999999
\xd9\xa3
\xc2\xb2
inf
"""
_ANSWERS = (
    _JSON
    + r"""
```json\n
```
\n```\n
~~~
<think>
</think>
Here it is:\x20
{"label":"a"}
{'a': 1}
[0, 1)
\\"
"""
)
_EXPRESSIONS = (
    _ANSWERS
    + r"""
label
items[].n
items[?n > `0`]
sort_by(items, &n)
length(@)
max_by
to_number
&
@
|
`1`
'x'
[0:2:-1]
*
"""
)
_SCHEMAS = (
    _ANSWERS
    + r"""
{"type":"object","required":["a"]}
"type":
"properties":
"enum":
"pattern":"^a+$"
"$ref":"#"
"$ref":"#/$defs/a"
"$ref":"http://x/y"
"$defs":
"multipleOf":0.1
"minimum":
"format":"date"
"allOf":
"not":
"$schema":"http://json-schema.org/draft-07/schema#"
"""
)
_RESULTS = (
    _JSON
    + r"""
{"id":"a","response":"x","error":null}\n
{"id":1,"response":"x"}\n
{"id":"1","response":"x","fingerprint":"9f2c61d0a7b3e418"}\n
{"id":"a","response":null,"error":{"type":"server"}}\n
{"id":"a","response":null,"tool_calls":[{}]}\n
{"id":"b","custom_id":"b","response":{"status_code":200,"body":{"choices":[{"message":{"content":"x"}}]}},"error":null}\n
{"custom_id":"b","response":{"status_code":500},"error":null}\n
"fingerprint":"-00000000000000f"
"batchchat":{"id":5}
"finished_at":"2026-11-25T10:03:11.120Z"
"finished_at":"0001-01-01T00:00:00+23:59"
"usage":{"input_tokens":1}
"latency_s":
"index":
"attempts":
"parsed":
"value":
"choices":["a",null]
"id":
"response":
\x00\x00\x00\x00
{"id":"a","resp
"""
)
_PACKED = r"""
\x1f\x8b\x08
\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03
\x28\xb5\x2f\xfd
\x28\xb5\x2f\xfd\x04
\x50\x2a\x4d\x18\x01\x00\x00\x00x
\x03\x00
\x00\x00\x00\x00
"""

TARGETS = {
    name: Parser(target, _words(text))
    for name, target, text in (
        ("sse", wire_targets.sse, _SSE),
        ("ai-engine", wire_targets.ai_engine, _AI_ENGINE),
        ("chat", wire_targets.chat, _CHAT),
        ("choices", wire_targets.choices, _CHAT),
        ("responses", wire_targets.responses, _RESPONSES),
        ("error-bodies", wire_targets.error_bodies, _ERRORS),
        ("nonce", wire_targets.nonce, _NONCES),
        ("headers", wire_targets.headers, _HEADERS),
        ("rates", wire_targets.rates, _HEADERS),
        ("previews", wire_targets.previews, _ERRORS),
        ("jsonl", input_targets.jsonl, _JSON),
        ("lines", input_targets.lines, _INPUT),
        ("csv", input_targets.csv, _ROWS),
        ("tsv", input_targets.tsv, _ROWS),
        ("gz", input_targets.gz, _PACKED),
        ("zst", input_targets.zst, _PACKED),
        ("job", input_targets.job, _JOBS),
        ("options", input_targets.options, _OPTIONS),
        ("scenario", input_targets.scenario, _SCENARIOS),
        ("env-file", input_targets.env_file, _ENV),
        ("template", input_targets.template, _TEMPLATES),
        ("durations", input_targets.durations, _DURATIONS),
        ("answers", input_targets.answers, _ANSWERS),
        ("expressions", input_targets.expressions, _EXPRESSIONS),
        ("schemas", input_targets.schemas, _SCHEMAS),
        ("journal", journal_targets.journal, _RESULTS),
        ("journal-batch", journal_targets.journal_batch, _RESULTS),
        ("journal-gz", journal_targets.journal_gz, _PACKED),
        ("journal-zst", journal_targets.journal_zst, _PACKED),
        ("stored", journal_targets.stored, _RESULTS),
    )
}


def kept(name: str, kind: str) -> Iterator[Path]:
    """Files of a target's ``corpus`` or ``findings``, in order."""
    return iter(sorted(path for path in (FOLDER / kind / name).glob("*") if path.is_file()))
