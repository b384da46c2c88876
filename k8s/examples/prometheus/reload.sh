#!/bin/sh
# Reloads Prometheus when the link leads to another commit and promtool accepts the new rules.
#
#   reload.sh LINK URL CONFIGURATION        http://localhost:9090
#
# Rules that promtool refuses leave Prometheus with those of the older commit, until a commit is
# accepted. A reload that fails, for example because Prometheus is starting, is tried again.
set -eu
link=$1 url=$2 configuration=$3
trap 'exit 0' TERM INT
loaded='' refused=''
while :; do
    tree=$(readlink -f "$link")
    commit=${tree##*/}
    if [ "$commit" != "$loaded" ] && [ "$commit" != "$refused" ]; then
        if ! promtool check config "$configuration" >/tmp/promtool 2>&1; then
            refused=$commit
            echo "the rules of $commit are refused; the old ones stay:" >&2
            cat /tmp/promtool >&2
        elif wget -q -O /dev/null --post-data='' "$url/-/reload"; then
            loaded=$commit refused=''
            echo "reloaded with the rules of $commit"
        else
            echo "reloading with the rules of $commit failed; next attempt in 2 s" >&2
        fi
    fi
    # In the background, because the shell handles a signal only between commands.
    sleep 2 &
    wait $!
done
