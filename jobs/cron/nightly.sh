#!/bin/sh
# What cron starts: the nightly job, silent unless somebody should look. Cron mails what this prints.
#   nightly.sh FOLDER    the folder of the project, with .venv/, jobs/ and results/ in it
umask 077
cd "${1:-/srv/reviews}" || exit 2
mkdir -p results || exit 6
log=results/nightly.log

"${BATCHCHAT:-.venv/bin/batchchat}" run -j jobs/nightly.yaml --quiet --log-format json </dev/null >/dev/null 2>>"$log"
code=$?

case $code in
  0) exit 0 ;;
  75) exit 0 ;;          # the run of the night before is still at work on the same results
  130 | 143) exit 0 ;;   # somebody stopped it, or the machine goes down; the next night goes on
  1) what="some prompts failed; results/reviews.errors.jsonl says why, and the next night asks them again" ;;
  2 | 3) what="the job or its input has a mistake" ;;
  4) what="ALERT: the service stopped the run (key, quota, blocked, or too long a wait)" ;;
  5) what="a limit of the job's own stopped the run (deadline, failures, budget)" ;;
  6) what="ALERT: results cannot be written" ;;
  *) what="the run ended in a way that it should not" ;;
esac
echo "batchchat: exit code $code: $what"
tail -n 3 "$log"
exit "$code"
