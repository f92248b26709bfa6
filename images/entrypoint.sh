#!/bin/sh
# `docker run IMAGE <step> ...` is the command line. Kubeflow's local runner gives a whole command instead, and keeps
# the entry point.
case "${1:-}" in
  sh | bash | python | python3) exec "$@" ;;
  *) exec stepcoder "$@" ;;
esac
