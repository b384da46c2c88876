#!/bin/sh
# Builds the site anew whenever the link names another commit, beside the old one, and flips.
#
#   build.sh LINK SITE        both absolute
#
# What a reader of a synced volume has to do, in small: resolve the link once, work on that tree
# to the end, look again. A build that fails leaves the old site up until the next commit.
set -eu
link=$1 site=$2
trap 'exit 0' TERM INT
tried=
while :; do
    tree=$(readlink -f "$link")
    commit=${tree##*/}
    if [ "$commit" != "$tried" ]; then
        tried=$commit
        rm -rf "$site/.building" "$site/.next"
        if mkdocs build --quiet --config-file "$tree/mkdocs.yml" --site-dir "$site/.building"; then
            rm -rf "${site:?}/$commit.old"
            [ ! -e "$site/$commit" ] || mv "$site/$commit" "$site/$commit.old"
            mv "$site/.building" "$site/$commit"
            ln -s "$commit" "$site/.next"
            mv -T "$site/.next" "$site/current"
            echo "built $commit"
            find "$site" -mindepth 1 -maxdepth 1 -type d ! -name "$commit" -exec rm -rf {} +
        else
            echo "building $commit failed; the old site stays up until the next commit" >&2
        fi
    fi
    # In the background, so that the shell hears a signal meanwhile.
    sleep 2 &
    wait $!
done
