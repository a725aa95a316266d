#!/bin/sh
# Watch a job: Server-Sent Events until it has ended. Cancel it, list jobs.
set -eu
. "$(dirname "$0")/lib.sh"
teach curl-follow

expect 202 "$A/train" -H "$JSON" -d '{"seed":1}'
job=$U$(header | sed "s|^$U||")
ask -N -H 'Accept: text/event-stream' "$job/events" >"$tmp/events"
head -n 12 "$tmp/events"
grep -q '^event: end' "$tmp/events" || { echo "$0: no end event" >&2; exit 1; }
# Later events only: after the first one.
ask -N -H 'Last-Event-ID: 1' "$job/events" >"$tmp/later"
! grep -q '^id: 1$' "$tmp/later" || { echo "$0: event 1 came again" >&2; exit 1; }
finished "$job"
expect 200 "$U/v1/jobs"
expect 409 -X DELETE "$job"
