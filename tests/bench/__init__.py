"""``make bench``: what a prompt costs and how close to a limit a run goes, beside the leanest client and other tools.

Figures, not tests. A server that costs next to nothing (`fast_server`) answers; each client is a child process whose CPU
seconds are read when it ends (`measure`), its every answer is checked, and clients take turns, so that a busy machine
troubles them alike. `workloads` says what is measured, `page` writes it into ``docs/performance.md``.
"""
