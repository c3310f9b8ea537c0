#!/bin/sh
# curl over the daemon's socket: an answer, a stream, and what the call may cost, before it is made.
set -eu
: "${CASCADED_SOCKET:=${XDG_RUNTIME_DIR:-/tmp/cascaded-$(id -u)}/cascaded.sock}"
question=${1:-What is the capital of France?}

ask() {
	curl -sS --fail-with-body --unix-socket "$CASCADED_SOCKET" "http://localhost$1" \
		-H 'content-type: application/json' -H 'X-User-ID: alice' -d "$2"
	echo
}

ask /check "{\"query\": \"$question\"}"
ask /v1/chat/completions \
	"{\"model\": \"auto\", \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}]}"
ask /infer "{\"query\": \"$question\", \"stream\": true}"
