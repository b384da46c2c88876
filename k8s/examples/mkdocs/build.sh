#!/bin/sh
# Builds the site whenever the link leads to another commit, and then flips the link of the site.
#
#   build.sh LINK SITE        both absolute
#
# It follows the rules for readers of a synced volume: resolve the link once, work on that tree to the
# end, then look again. If a build fails, the old site stays, and the same commit is tried again after
# 2 s, 4 s and so on up to 60 s, or at once when the next commit comes. SITE/metrics says in
# Prometheus's format which commit is built and how often in a row the build of the next one failed.
set -eu
link=$1 site=$2
trap 'exit 0' TERM INT

report() {
    cat >"$site/.metrics" <<EOF
# HELP site_build_failures Failed builds in a row; 0 after a success.
# TYPE site_build_failures gauge
site_build_failures $failures
# HELP site_build_last_success_timestamp_seconds When the site was last built; 0 for never.
# TYPE site_build_last_success_timestamp_seconds gauge
site_build_last_success_timestamp_seconds $success
# HELP site_build_info The commit that the site shows.
# TYPE site_build_info gauge
site_build_info{commit="$built"} 1
EOF
    mv "$site/.metrics" "$site/metrics"
}

publish() {
    rm -rf "${site:?}/$commit.old"
    [ ! -e "$site/$commit" ] || mv "$site/$commit" "$site/$commit.old"
    mv "$site/.building" "$site/$commit"
    ln -s "$commit" "$site/.next"
    mv -T "$site/.next" "$site/current"
    find "$site" -mindepth 1 -maxdepth 1 -type d ! -name "$commit" -exec rm -rf {} +
}

built='' tried='' failures=0 success=0 wait=0
report
while :; do
    tree=$(readlink -f "$link")
    commit=${tree##*/}
    if [ "$commit" != "$tried" ]; then
        failures=0 wait=0
    fi
    tried=$commit
    if [ "$commit" != "$built" ] && [ "$wait" -le 0 ]; then
        rm -rf "$site/.building" "$site/.next"
        if mkdocs build --quiet --config-file "$tree/mkdocs.yml" --site-dir "$site/.building"; then
            publish
            built=$commit failures=0 success=$(date +%s)
            echo "built $commit"
        else
            failures=$((failures + 1))
            wait=$((failures < 6 ? 1 << failures : 60))
            echo "building $commit failed, $failures times in a row: the old site stays, next attempt in $wait s" >&2
        fi
        report
    fi
    # In the background, because the shell handles a signal only between commands.
    sleep 1 &
    wait $!
    wait=$((wait - 1))
done
