#!/bin/sh
# Runs a line of the Procfile as the container's process.
#
# A worker's name is new at every start: a container that is started again keeps its hostname and
# its process ids, and leases of one life must not be taken for those of the next.
set -eu
if [ -z "${FLEET_WORKER_NAME:-}" ]; then
    FLEET_WORKER_NAME="${HOSTNAME:-worker}-$(cut -c 1-8 /proc/sys/kernel/random/uuid)"
    export FLEET_WORKER_NAME
fi
exec /bin/sh -c "exec $1"
